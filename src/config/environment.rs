//! Which environment variables are settings, and which only look like it. Pure.
//!
//! Kubernetes gives every container variables for every Service of its namespace, so a Service named
//! `cello-relay` or `cello-relay-gateway` makes names with our prefix that nobody wrote.

use super::layers::Schema;

/// What all our variables begin with.
const PREFIX: &str = "CELLO_RELAY_";
/// The list of files.
pub(super) const CONFIG: &str = "CELLO_RELAY_CONFIG";

/// What an environment variable is to us.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Somebody else's, or a service link.
    Foreign,
    /// The setting `section.key`, known or not.
    Key(String),
    /// A setting spelled with one underscore; how it should be.
    Misspelled(String),
    /// Has our prefix and no meaning.
    Stray,
}

/// Tells what a variable of that name is.
pub(super) fn classify(name: &str, schema: &Schema) -> Name {
    let Some(rest) = name.strip_prefix(PREFIX) else { return Name::Foreign };
    if name == CONFIG {
        return Name::Foreign;
    }
    let lower = rest.to_ascii_lowercase();
    if let Some((section, key)) = lower.split_once("__")
        && schema.has_section(section)
    {
        return Name::Key(format!("{section}.{key}"));
    }
    if is_service_link(rest) {
        return Name::Foreign;
    }
    if let Some((section, key)) = lower.split_once("__") {
        return Name::Key(format!("{section}.{key}"));
    }
    match lower.split_once('_') {
        Some((section, key)) if schema.has_section(section) => {
            let meant = schema.nearest(&format!("{section}.{key}")).map_or(format!("{section}.{key}"), str::to_owned);
            Name::Misspelled(variable(&meant))
        }
        _ => Name::Stray,
    }
}

/// The variable of a key: `ingest.max_batch` is `CELLO_RELAY_INGEST__MAX_BATCH`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replacen('.', "__", 1).to_ascii_uppercase())
}

/// `[<NAME>_]SERVICE_HOST`, `…SERVICE_PORT[_<NAME>]`, `…PORT` and `…PORT_<n>_<PROTOCOL>[_…]`.
fn is_service_link(rest: &str) -> bool {
    // A leading underscore stands for the one between our prefix and the rest.
    let name = format!("_{rest}");
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    name.ends_with("_PORT") || name.rsplit("_PORT_").any(is_port_and_protocol)
}

/// `8745_TCP`, `8745_TCP_ADDR`, …
fn is_port_and_protocol(text: &str) -> bool {
    let mut parts = text.split('_');
    let number = parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    number && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str) -> Name {
        classify(name, &Schema::of_defaults())
    }

    #[test]
    fn service_link_variables_are_nobodys() {
        for name in [
            "CELLO_RELAY_SERVICE_HOST",
            "CELLO_RELAY_SERVICE_PORT",
            "CELLO_RELAY_SERVICE_PORT_INGEST",
            "CELLO_RELAY_PORT",
            "CELLO_RELAY_PORT_8745_TCP",
            "CELLO_RELAY_PORT_8745_TCP_ADDR",
            "CELLO_RELAY_PORT_8745_TCP_PORT",
            "CELLO_RELAY_PORT_8745_TCP_PROTO",
            "CELLO_RELAY_GATEWAY_SERVICE_HOST",
            "CELLO_RELAY_GATEWAY_SERVICE_PORT_HTTP_METRICS",
            "CELLO_RELAY_GATEWAY_PORT",
            "CELLO_RELAY_GATEWAY_PORT_8746_TCP_ADDR",
            "CELLO_RELAY_OPS_PORT",
            "CELLO_RELAY_INGEST_SERVICE_HOST",
            "CELLO_RELAY_INGEST_PORT_53_UDP",
        ] {
            assert_eq!(class(name), Name::Foreign, "{name}");
        }
    }

    #[test]
    fn settings_are_recognised_by_two_underscores() {
        assert_eq!(class("CELLO_RELAY_INGEST__MAX_BATCH"), Name::Key("ingest.max_batch".into()));
        assert_eq!(class("CELLO_RELAY_INGEST__PORT"), Name::Key("ingest.port".into()));
        assert_eq!(class("CELLO_RELAY_INGRESS__LISTEN"), Name::Key("ingress.listen".into()));
    }

    #[test]
    fn one_underscore_after_a_known_section_shows_the_right_spelling() {
        assert_eq!(class("CELLO_RELAY_INGEST_MAX_BATCH"), Name::Misspelled("CELLO_RELAY_INGEST__MAX_BATCH".into()));
        assert_eq!(class("CELLO_RELAY_OPS_LISTENS"), Name::Misspelled("CELLO_RELAY_OPS__LISTEN".into()));
    }

    #[test]
    fn other_names_with_our_prefix_are_strays_and_names_without_it_are_foreign() {
        assert_eq!(class("CELLO_RELAY_DEBUG"), Name::Stray);
        assert_eq!(class("CELLO_RELAY_IMAGE_TAG"), Name::Stray);
        assert_eq!(class("CELLO_RELAY_CONFIG"), Name::Foreign);
        assert_eq!(class("PATH"), Name::Foreign);
    }
}
