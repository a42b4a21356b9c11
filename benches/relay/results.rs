//! Figures by scenario, and how they are printed: medians, the first one with its range.

use std::fmt;

use serde_json::{Map, Value, json};

/// All figures of a run, in the order in which they were first taken.
#[derive(Default)]
pub(crate) struct Results {
    rows: Vec<Row>,
    /// What a reader has to know beside the figures.
    notes: Vec<String>,
}

struct Row {
    scenario: &'static str,
    who: String,
    figures: Vec<(&'static str, Vec<f64>)>,
}

impl Results {
    /// One round's figures.
    pub(crate) fn add(&mut self, scenario: &'static str, who: &str, figures: &[(&'static str, f64)]) {
        let found = self.rows.iter().position(|row| row.scenario == scenario && row.who == who);
        let index = found.unwrap_or_else(|| {
            self.rows.push(Row { scenario, who: who.to_owned(), figures: Vec::new() });
            self.rows.len() - 1
        });
        for (name, value) in figures {
            let figures = &mut self.rows[index].figures;
            match figures.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(*value),
                None => figures.push((name, vec![*value])),
            }
        }
    }

    /// Something to be told once.
    pub(crate) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, scenario: &str, who: &str, figure: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.scenario == scenario && row.who == who)?;
        let (_, values) = row.figures.iter().find(|(name, _)| *name == figure)?;
        Some(median(values))
    }

    /// The median of every row's figure, with who it is of.
    pub(crate) fn all(&self, scenario: &str, figure: &str) -> Vec<(&str, f64)> {
        let rows = self.rows.iter().filter(|row| row.scenario == scenario);
        rows.filter_map(|row| Some((row.who.as_str(), self.median(scenario, &row.who, figure)?))).collect()
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        let rows = self.rows.iter().map(|row| {
            let figures: Map<String, Value> = row
                .figures
                .iter()
                .map(|(name, values)| {
                    let (min, max) = range(values);
                    ((*name).to_owned(), json!({ "median": median(values), "min": min, "max": max }))
                })
                .collect();
            json!({ "scenario": row.scenario, "who": row.who, "figures": figures })
        });
        json!({ "rows": Value::from_iter(rows), "notes": self.notes })
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut scenario = "";
        let mut columns: Vec<&str> = Vec::new();
        for row in &self.rows {
            if row.scenario != scenario {
                scenario = row.scenario;
                let rows = self.rows.iter().filter(|row| row.scenario == scenario);
                columns = Vec::new();
                for (name, _) in rows.flat_map(|row| &row.figures) {
                    if !columns.contains(name) {
                        columns.push(name);
                    }
                }
                write!(f, "\n{scenario:<32}")?;
                for (index, name) in columns.iter().enumerate() {
                    write!(f, " {name:>width$}", width = if index == 0 { 26 } else { 11 })?;
                }
                writeln!(f)?;
            }
            write!(f, "  {:<30}", row.who)?;
            for (index, column) in columns.iter().enumerate() {
                let width = if index == 0 { 26 } else { 11 };
                let values = row.figures.iter().find(|(name, _)| name == column).map(|(_, values)| values);
                let text = match values {
                    None => String::new(),
                    Some(values) if index == 0 => {
                        let (min, max) = range(values);
                        format!("{} ({}-{})", short(median(values)), short(min), short(max))
                    }
                    Some(values) => short(median(values)),
                };
                write!(f, " {text:>width$}")?;
            }
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "\n{note}"))?;
        writeln!(f)
    }
}

/// Three digits that count.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        middle if middle >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |index: usize| sorted.get(index).copied().unwrap_or_default();
    f64::midpoint(middle(sorted.len().saturating_sub(1) / 2), middle(sorted.len() / 2))
}

fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::MAX, 0.0_f64), |(min, max), value| (min.min(*value), max.max(*value)))
}
