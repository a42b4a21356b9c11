//! Which path is what.

use hyper::Method;

use crate::metrics::Route as Label;

/// A known path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    Events,
    Batch,
    /// `/events/{id}`
    Event(&'p str),
    Outbox,
    Token,
    OpenApi,
    /// A read through Cello that is asked for with GET.
    Read,
    /// `/referrers/{productUserId}/depersonalize`
    Depersonalize,
}

impl<'p> Route<'p> {
    pub(super) fn find(path: &'p str) -> Option<Self> {
        match path {
            "/events" => return Some(Route::Events),
            "/events/batch" => return Some(Route::Batch),
            "/token" => return Some(Route::Token),
            "/outbox" => return Some(Route::Outbox),
            "/openapi.json" => return Some(Route::OpenApi),
            _ => {}
        }
        let mut segments = path.strip_prefix('/')?.split('/');
        match (segments.next()?, segments.next()?, segments.next(), segments.next()) {
            (_, "", ..) | (_, _, Some(""), _) | (.., Some(_)) => None,
            ("events", id, None, None) => Some(Route::Event(id)),
            // Without an id it is no code either.
            ("referral-codes", "active-link", None, None) => None,
            ("referral-codes", "active-link", Some(_), None) => Some(Route::Read),
            ("referral-codes", _, None, None) => Some(Route::Read),
            ("new-users", _, Some("reward"), None) => Some(Route::Read),
            ("referrers", _, Some("depersonalize"), None) => Some(Route::Depersonalize),
            _ => None,
        }
    }

    /// The methods it answers.
    pub(super) fn methods(self) -> &'static [Method] {
        match self {
            Route::Events | Route::Batch | Route::Token | Route::Depersonalize => &[Method::POST],
            Route::Event(_) | Route::Outbox | Route::OpenApi | Route::Read => &[Method::GET, Method::HEAD],
        }
    }

    /// Its name in metrics.
    pub(super) fn label(self) -> Label {
        match self {
            Route::Events => Label::Events,
            Route::Batch => Label::Batch,
            Route::Read | Route::Depersonalize => Label::Read,
            Route::Event(_) | Route::Outbox | Route::Token | Route::OpenApi => Label::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_known_paths_are_routes() {
        assert_eq!(Route::find("/events/batch"), Some(Route::Batch));
        assert_eq!(Route::find("/events/abc"), Some(Route::Event("abc")));
        assert_eq!(Route::find("/referral-codes/UIPIWa2Hnnr"), Some(Route::Read));
        assert_eq!(Route::find("/referral-codes/active-link/7"), Some(Route::Read));
        assert_eq!(Route::find("/new-users/7/reward"), Some(Route::Read));
        assert_eq!(Route::find("/referrers/7/depersonalize"), Some(Route::Depersonalize));
        for path in [
            "",
            "/",
            "*",
            "/event",
            "/events/",
            "/events/a/b",
            "//events",
            "/referral-codes",
            "/referral-codes/",
            "/referral-codes/active-link",
            "/referral-codes/active-link/",
            "/referral-codes/a/b",
            "/new-users/7",
            "/new-users//reward",
            "/referrers/7",
            "/new-users/7/reward/x",
        ] {
            assert_eq!(Route::find(path), None, "{path}");
        }
    }
}
