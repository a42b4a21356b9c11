//! A disk as the calls leave it: what is durable, and what may be lost, torn or reordered by a power cut.
//!
//! Nothing is promised but what POSIX does: a file's bytes and length last once the file was synced, a name once
//! its directory was. Of the rest each change may have reached the disk or not, whatever came before or after it,
//! a write sector by sector.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;

use fastrand::Rng;

use super::log::Record;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Default)]
pub(crate) struct Disk {
    files: Vec<File>,
    /// The newest file with that number; numbers are used again.
    numbers: HashMap<u64, usize>,
    names: BTreeMap<String, Node>,
    unsynced_names: Vec<Rename>,
}

#[derive(Clone, Copy)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

enum Change {
    Write { offset: usize, data: Rc<[u8]> },
    Truncate(usize),
}

enum Rename {
    Add(String, Node),
    Remove(String),
    Move(String, String),
}

/// What becomes of unsynced changes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// All are lost.
    Lost,
    /// None is lost: what a kill leaves.
    Kept,
    /// Each is kept, lost or torn by chance.
    Torn,
}

/// The tree that is left: directories, and files with their bytes.
pub(crate) type Image = BTreeMap<String, Option<Vec<u8>>>;

impl Disk {
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::Create { ino, path } => {
                self.files.push(File::default());
                self.numbers.insert(*ino, self.files.len() - 1);
                self.unsynced_names.push(Rename::Add(path.clone(), Node::File(self.files.len() - 1)));
            }
            Record::Mkdir { path, .. } => self.unsynced_names.push(Rename::Add(path.clone(), Node::Dir)),
            Record::Unlink { path } => self.unsynced_names.push(Rename::Remove(path.clone())),
            Record::Rename { from, to } => self.unsynced_names.push(Rename::Move(from.clone(), to.clone())),
            Record::Truncate { ino, length } => self.file(*ino).unsynced.push(Change::Truncate(*length)),
            Record::Write { ino, offset, data } => {
                self.file(*ino).unsynced.push(Change::Write { offset: *offset, data: Rc::clone(data) });
            }
            Record::Sync { ino } => {
                let file = self.file(*ino);
                for change in std::mem::take(&mut file.unsynced) {
                    change.apply(&mut file.durable, |_| true);
                }
            }
            Record::SyncDir { path } => {
                let all = std::mem::take(&mut self.unsynced_names);
                let (synced, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|change| change.parent() == path);
                self.unsynced_names = left;
                synced.iter().for_each(|change| change.apply(&mut self.names));
            }
            Record::Told { .. } | Record::Heard { .. } => {}
        }
    }

    fn file(&mut self, ino: u64) -> &mut File {
        &mut self.files[self.numbers[&ino]]
    }

    /// What is left after a cut now.
    pub(crate) fn cut(&self, how: Cut, random: &mut Rng) -> Image {
        let mut names = self.names.clone();
        let loss = f64::from(random.u32(5..95)) / 100.0;
        let mut survives = |random: &mut Rng| match how {
            Cut::Lost => false,
            Cut::Kept => true,
            Cut::Torn => random.f64() > loss,
        };
        for change in &self.unsynced_names {
            if survives(random) {
                change.apply(&mut names);
            }
        }
        let mut image = Image::new();
        for (path, node) in names {
            // What is in a directory that is gone is gone.
            if parent(&path) == "." || image.contains_key(parent(&path)) {
                let content = match node {
                    Node::Dir => None,
                    Node::File(file) => Some(self.files[file].cut(how, random, &mut survives)),
                };
                image.insert(path, content);
            }
        }
        image
    }
}

impl File {
    fn cut(&self, how: Cut, random: &mut Rng, survives: &mut impl FnMut(&mut Rng) -> bool) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.unsynced {
            if survives(random) {
                let is_torn = matches!(how, Cut::Torn) && random.u32(..4) == 0;
                change.apply(&mut bytes, |_| !is_torn || random.bool());
            } else if let Change::Write { offset, data } = change
                && matches!(how, Cut::Torn)
                && random.u32(..4) == 0
            {
                // The length came to the disk before the data.
                bytes.resize(bytes.len().max(offset + data.len()), 0);
            }
        }
        bytes
    }
}

impl Change {
    /// Changes the sectors that `keeps` tells.
    fn apply(&self, bytes: &mut Vec<u8>, mut keeps: impl FnMut(usize) -> bool) {
        match self {
            Change::Truncate(length) => bytes.resize(*length, 0),
            Change::Write { offset, data } => {
                let end = offset + data.len();
                for sector in offset / SECTOR..end.div_ceil(SECTOR) {
                    let (from, to) = ((sector * SECTOR).max(*offset), ((sector + 1) * SECTOR).min(end));
                    if keeps(sector) {
                        bytes.resize(bytes.len().max(to), 0);
                        bytes[from..to].copy_from_slice(&data[from - offset..to - offset]);
                    }
                }
            }
        }
    }
}

impl Rename {
    fn parent(&self) -> &str {
        let (Rename::Add(path, _) | Rename::Remove(path) | Rename::Move(path, _)) = self;
        parent(path)
    }

    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Rename::Add(path, node) => drop(names.insert(path.clone(), *node)),
            Rename::Remove(path) => drop(names.remove(path)),
            Rename::Move(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(parent, _)| parent)
}

/// Makes real files of an image.
pub(crate) fn write(image: &Image, at: &Path) {
    for (path, content) in image {
        let path = at.join(path);
        match content {
            None => std::fs::create_dir(&path).expect("a folder"),
            Some(bytes) => std::fs::write(&path, bytes).expect("a file"),
        }
    }
}
