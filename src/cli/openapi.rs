//! `openapi`: the document that `GET /openapi.json` serves.

use super::exit::Failure;
use super::output;

pub(super) fn run() -> Result<(), Failure> {
    output::print(crate::ingress::OPENAPI)
}
