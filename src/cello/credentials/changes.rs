//! Hears that something in a directory has changed.
//!
//! By inotify, on the thread that waits for it; where there is none, nothing is ever heard.

#[cfg(target_os = "linux")]
pub(super) use linux::Changes;

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// Directories under watch.
    pub(in crate::cello::credentials) struct Changes(AsyncFd<OwnedFd>);

    impl Changes {
        /// None are watched yet. Needs a runtime around it.
        #[expect(deprecated, reason = "unsound for what may change its descriptor under way; an OwnedFd does not")]
        pub(in crate::cello::credentials) fn new() -> io::Result<Self> {
            let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            Ok(Self(AsyncFd::with_interest(inotify, Interest::READABLE)?))
        }

        /// From now on what changes in it is heard, until it is gone; once, however often this is called.
        pub(in crate::cello::credentials) fn watch(&self, directory: &Path) -> io::Result<()> {
            // Not that a file is opened or read: that is what we do.
            let changes = WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF;
            add_watch(self.0.get_ref(), directory, changes)?;
            Ok(())
        }

        /// Resolves when something has changed since the last call.
        pub(in crate::cello::credentials) async fn heard(&self) -> io::Result<()> {
            let mut ready = self.0.readable().await?;
            let mut told = [0; 4096];
            // Which changes they are does not matter; until nothing is left, or that cannot be told.
            while let Ok(Ok(_)) = ready.try_io(|inotify| Ok(rustix::io::read(inotify, &mut told)?)) {}
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) struct Changes;

#[cfg(not(target_os = "linux"))]
impl Changes {
    pub(super) fn new() -> std::io::Result<Self> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(super) fn watch(&self, _: &std::path::Path) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    pub(super) async fn heard(&self) -> std::io::Result<()> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::time::Duration;

    use super::Changes;

    /// All that is there to be heard.
    async fn is_heard(changes: &Changes) -> bool {
        tokio::time::timeout(Duration::from_secs(60), changes.heard()).await.is_ok_and(|heard| heard.is_ok())
    }

    #[tokio::test]
    async fn every_way_to_replace_a_file_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("key"), "old").unwrap();
        fs::create_dir(at("elsewhere")).unwrap();
        fs::write(at("elsewhere/new"), "new").unwrap();
        let changes = Changes::new().unwrap();
        changes.watch(dir.path()).unwrap();
        changes.watch(dir.path()).unwrap();
        let ways: [(&str, &dyn Fn()); 6] = [
            ("written in place", &|| fs::write(at("key"), "new").unwrap()),
            ("moved over it", &|| fs::rename(at("elsewhere/new"), at("key")).unwrap()),
            ("made readable", &|| fs::set_permissions(at("key"), fs::Permissions::from_mode(0o600)).unwrap()),
            ("a link to a directory beside it", &|| symlink("elsewhere", at("..data")).unwrap()),
            ("taken away", &|| fs::remove_file(at("key")).unwrap()),
            ("moved away", &|| fs::rename(at("..data"), at("elsewhere/old")).unwrap()),
        ];
        for (what, change) in ways {
            change();
            assert!(is_heard(&changes).await, "{what}");
        }
    }

    #[tokio::test]
    async fn that_a_file_is_read_is_not_heard() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), "old").unwrap();
        let changes = Changes::new().unwrap();
        changes.watch(dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("key")).unwrap(), b"old");
        assert!(is_silent(&changes).await);
        fs::write(dir.path().join("key"), "new").unwrap();
        assert!(is_heard(&changes).await);
    }

    /// Whether nothing is heard once the runtime has asked the kernel.
    async fn is_silent(changes: &Changes) -> bool {
        tokio::select! {
            biased;
            _ = changes.heard() => false,
            () = tokio::time::sleep(Duration::from_millis(1)) => true,
        }
    }

    #[tokio::test]
    async fn a_directory_that_is_not_there_is_an_error() {
        assert!(Changes::new().unwrap().watch(Path::new("/nowhere")).is_err());
    }
}
