//! Families with closed labels: resolved once, then an array index on the hot path.

use std::marker::PhantomData;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// Every value; position = [`Label::index`].
    const ALL: &'static [Self];
    /// The value as exposed.
    fn as_str(self) -> &'static str;
    /// The position in [`Label::ALL`].
    fn index(self) -> usize;
}

/// The series of one family with one label.
///
/// Values that are expected are initialised to 0; one that is not is made when it first occurs, so
/// nothing is ever miscounted.
pub struct Family<L, B: MetricVecBuilder> {
    family: MetricVec<B>,
    expected: Vec<Option<B::M>>,
    label: PhantomData<fn(L)>,
}

/// Counters by one label.
pub type Counters<L> = Family<L, <IntCounterVec as Parts>::Builder>;
/// Gauges by one label.
pub type Gauges<L> = Family<L, <IntGaugeVec as Parts>::Builder>;
/// Histograms by one label.
pub type Histograms<L> = Family<L, <HistogramVec as Parts>::Builder>;

/// Names the builder behind prometheus' type aliases.
pub trait Parts {
    /// What makes one series.
    type Builder: MetricVecBuilder;
}

impl<B: MetricVecBuilder> Parts for MetricVec<B> {
    type Builder = B;
}

impl<L: Label, B: MetricVecBuilder> Family<L, B>
where
    B::M: Clone,
    MetricVec<B>: Collector,
{
    pub(super) fn new(family: MetricVec<B>, expected: &[L]) -> Self {
        let mut series = vec![None; L::ALL.len()];
        for label in expected {
            series[label.index()] = Some(family.with_label_values(&[label.as_str()]));
        }
        Self { family, expected: series, label: PhantomData }
    }

    /// The series of one label value.
    pub fn with(&self, label: L) -> B::M {
        let known = self.expected[label.index()].clone();
        known.unwrap_or_else(|| self.family.with_label_values(&[label.as_str()]))
    }
}

impl<L: Label> Counters<L> {
    /// The sum over all values that are expected.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.expected.iter().flatten().map(|counter| counter.get()).sum()
    }
}

impl<L: Label> Gauges<L> {
    /// Sets the one to 1 and all others to 0; `None` clears all.
    pub fn only(&self, label: Option<L>) {
        for other in self.expected.iter().flatten() {
            other.set(0);
        }
        if let Some(label) = label {
            self.with(label).set(1);
        }
    }
}
