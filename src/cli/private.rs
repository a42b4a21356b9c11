//! The process's memory holds access keys, tokens and personal data: nobody else gets to see it.

/// Switches core dumps off, and with them what other processes of the same user could otherwise read under `/proc`:
/// memory, environment, open files. Probes and metrics go on: a process may always look at itself.
///
/// # Errors
/// The system refuses, as a strict sandbox may.
#[cfg(target_os = "linux")]
pub(super) fn keep_memory_private() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

    // One without the other is not enough: a limit of 0 does not stop a dump that the system pipes to a
    // collector, and what is not dumpable may become so again when the system is told to dump everything.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

/// Elsewhere the limit is all there is.
///
/// # Errors
/// The system refuses.
#[cfg(not(target_os = "linux"))]
pub(super) fn keep_memory_private() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};

    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}
