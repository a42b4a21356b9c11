//! What kind of file system an outbox lies on: the locks and syncs of some cannot be trusted, and what lies on others does
//! not last.

use std::io;
use std::path::Path;

/// How far a file system can be trusted with events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// What was synced is there after a crash of the machine.
    Durably,
    /// Its locks and syncs depend on others.
    Remotely,
    /// Until the container is removed.
    WithContainer,
    /// Until the machine, or the pod, ends.
    InMemory,
}

/// A file system as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its name, of a closed list; `other` is one that is not known.
    pub name: &'static str,
    /// What becomes of files there.
    pub keeps: Keeps,
}

impl FileSystem {
    /// Of that directory.
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        Ok(Self::by_magic(rustix::fs::statfs(dir)?.f_type))
    }

    /// By the number of `statfs(2)`.
    fn by_magic(magic: impl TryInto<i64>) -> Self {
        // Some are written as negative 32-bit numbers by some kernels.
        let (name, keeps) = match magic.try_into().unwrap_or(0) & 0xffff_ffff {
            0xef53 => ("ext", Keeps::Durably),
            0x5846_5342 => ("xfs", Keeps::Durably),
            0x9123_683e => ("btrfs", Keeps::Durably),
            0x2fc1_2fc1 => ("zfs", Keeps::Durably),
            0xf2f5_2010 => ("f2fs", Keeps::Durably),
            0x6969 => ("NFS", Keeps::Remotely),
            0x517b => ("SMB", Keeps::Remotely),
            0xff53_4d42 => ("CIFS", Keeps::Remotely),
            0xfe53_4d42 => ("SMB2", Keeps::Remotely),
            0x00c3_6400 => ("CephFS", Keeps::Remotely),
            0x0102_1997 => ("9p", Keeps::Remotely),
            0x794c_7630 => ("overlay", Keeps::WithContainer),
            0x0102_1994 => ("tmpfs", Keeps::InMemory),
            0x8584_58f6 => ("ramfs", Keeps::InMemory),
            _ => ("other", Keeps::Durably),
        };
        Self { name, keeps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_known_by_their_numbers_and_others_are_taken_for_disks() {
        for (magic, name, keeps) in [
            (0xef53_i64, "ext", Keeps::Durably),
            (0x6969, "NFS", Keeps::Remotely),
            (0x517b, "SMB", Keeps::Remotely),
            (0xff53_4d42, "CIFS", Keeps::Remotely),
            (0xfe53_4d42, "SMB2", Keeps::Remotely),
            (0x00c3_6400, "CephFS", Keeps::Remotely),
            (0x0102_1997, "9p", Keeps::Remotely),
            (0x794c_7630, "overlay", Keeps::WithContainer),
            (0x0102_1994, "tmpfs", Keeps::InMemory),
            (0x6573_5546, "other", Keeps::Durably),
        ] {
            assert_eq!(FileSystem::by_magic(magic), FileSystem { name, keeps });
        }
        assert_eq!(FileSystem::by_magic(0xff53_4d42_u32 as i32).name, "CIFS", "negative");
    }
}
