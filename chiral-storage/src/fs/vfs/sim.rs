//! A simulated disk whose power can be cut.
//!
//! What was synced survives. Of the rest, writes are dropped, reordered and torn by pages
//! of 4 KiB and sectors of 512 bytes, and changes of names are kept or lost one by one,
//! each as a whole. One operation can be made to fail, or to write too little.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::{FileStat, LockGuard, OpenMode, Vfs, VfsFile};
use crate::blocking::lock;

const PAGE: usize = 4096;
const SECTOR: usize = 512;

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(in crate::fs) struct Random(pub(in crate::fs) u64);

impl Random {
    pub(in crate::fs) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }

    pub(in crate::fs) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// What goes wrong at one operation.
#[derive(Clone, Copy, Debug)]
pub(in crate::fs) enum Fault {
    NoSpace,
    Io,
    ShortWrite,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                if to.len() < at + bytes.len() {
                    to.resize(at + bytes.len(), 0);
                }
                to[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::SetLen(len) => to.resize(*len, 0),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    mtime: i64,
    durable_mtime: i64,
    /// Bytes that were written, however often each.
    written: u64,
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(PathBuf, u64),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

impl NameChange {
    fn is_in(&self, dir: &Path) -> bool {
        match self {
            Self::Add(path, _) | Self::Remove(path) => path.parent() == Some(dir),
            Self::Rename(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn apply(&self, to: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Add(path, inode) => {
                to.insert(path.clone(), *inode);
            }
            Self::Remove(path) => {
                to.remove(path);
            }
            Self::Rename(from, target, inode) => {
                to.remove(from);
                to.insert(target.clone(), *inode);
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced_names: Vec<NameChange>,
    dirs: Vec<PathBuf>,
    next_inode: u64,
    clock: i64,
    step: u64,
    crash_at: Option<u64>,
    fault: Option<(u64, Fault)>,
    off: bool,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(in crate::fs) struct SimVfs(Arc<Mutex<State>>);

#[derive(Debug)]
struct SimFile {
    disk: SimVfs,
    inode: u64,
}

impl State {
    /// Counts an operation that changes something; `Some` if it must write too little.
    fn step(&mut self) -> io::Result<bool> {
        self.step += 1;
        if self.crash_at.is_some_and(|at| self.step >= at) {
            self.off = true;
        }
        self.check_power()?;
        match self.fault {
            Some((at, fault)) if self.step >= at => {
                self.fault = None;
                match fault {
                    Fault::NoSpace => Err(ErrorKind::StorageFull.into()),
                    Fault::Io => Err(io::Error::from_raw_os_error(5)),
                    Fault::ShortWrite => Ok(true),
                }
            }
            _ => Ok(false),
        }
    }

    fn check_power(&self) -> io::Result<()> {
        if self.off {
            Err(io::Error::other("the power is off"))
        } else {
            Ok(())
        }
    }

    fn rename_step(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn change(&mut self, inode: u64, change: Change) {
        self.clock += 1;
        let clock = self.clock;
        let inode = self.inodes.entry(inode).or_default();
        change.apply(&mut inode.data);
        if let Change::Write(_, bytes) = &change {
            inode.written += bytes.len() as u64;
        }
        inode.unsynced.push(change);
        inode.mtime = clock;
    }

    fn sync(&mut self, inode: u64, time: bool) {
        let inode = self.inodes.entry(inode).or_default();
        for change in std::mem::take(&mut inode.unsynced) {
            change.apply(&mut inode.durable);
        }
        if time {
            inode.durable_mtime = inode.mtime;
        }
    }

    fn stat(&self, inode: u64) -> FileStat {
        let file = &self.inodes[&inode];
        let (len, mtime_seconds) = (file.data.len() as u64, file.mtime);
        FileStat {
            len,
            mtime_seconds,
            mtime_nanos: 0,
            inode,
            regular: true,
        }
    }
}

impl SimVfs {
    /// A disk with these files, durable.
    pub(in crate::fs) fn new(files: &[(PathBuf, Vec<u8>)]) -> Self {
        let disk = Self::default();
        for (path, bytes) in files {
            let mut state = lock(&disk.0);
            state.next_inode += 1;
            let inode = state.next_inode;
            let (data, durable) = (bytes.clone(), bytes.clone());
            state.inodes.insert(
                inode,
                Inode {
                    data,
                    durable,
                    ..Inode::default()
                },
            );
            state.names.insert(path.clone(), inode);
            state.durable_names.insert(path.clone(), inode);
        }
        disk
    }

    /// Cuts the power at the operation of this number.
    pub(in crate::fs) fn crash_at(&self, step: u64) {
        lock(&self.0).crash_at = Some(step);
    }

    pub(in crate::fs) fn fault_at(&self, step: u64, fault: Fault) {
        lock(&self.0).fault = Some((step, fault));
    }

    pub(in crate::fs) fn is_off(&self) -> bool {
        lock(&self.0).off
    }

    pub(in crate::fs) fn steps(&self) -> u64 {
        lock(&self.0).step
    }

    /// All files.
    pub(in crate::fs) fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let state = lock(&self.0);
        let named = state.names.iter();
        named
            .map(|(path, inode)| (path.clone(), state.inodes[inode].data.clone()))
            .collect()
    }

    /// Bytes that were written to a file, under whatever name it had; to none if it is not there.
    pub(in crate::fs) fn written(&self, path: &Path) -> u64 {
        let state = lock(&self.0);
        let inode = state.names.get(path);
        inode.map_or(0, |inode| state.inodes[inode].written)
    }

    /// The disk after the power came back: what was synced, and some of the rest.
    pub(in crate::fs) fn reboot(&self, random: &mut Random) -> Self {
        let mut old = lock(&self.0);
        old.off = true;
        let mut names = old.durable_names.clone();
        // Some crashes lose everything or nothing.
        let loss = random.below(4);
        let mut kept = |random: &mut Random| match loss {
            0 => false,
            1 => true,
            _ => random.one_in(2),
        };
        for change in &old.unsynced_names {
            if kept(random) {
                change.apply(&mut names);
            }
        }
        let mut inodes = BTreeMap::new();
        for (number, inode) in &old.inodes {
            let mut data = inode.durable.clone();
            for change in &inode.unsynced {
                survive(change, &mut data, random, &mut kept);
            }
            let mtime = if kept(random) {
                inode.mtime
            } else {
                inode.durable_mtime
            };
            let durable = data.clone();
            let (unsynced, durable_mtime) = (Vec::new(), mtime);
            inodes.insert(
                *number,
                Inode {
                    data,
                    durable,
                    unsynced,
                    mtime,
                    durable_mtime,
                    written: inode.written,
                },
            );
        }
        Self(Arc::new(Mutex::new(State {
            inodes,
            durable_names: names.clone(),
            names,
            dirs: old.dirs.clone(),
            next_inode: old.next_inode,
            clock: old.clock + 1,
            ..State::default()
        })))
    }
}

impl SimVfs {
    fn rename(&self, from: &Path, to: &Path, over: bool) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.step()?;
        let inode = *state.names.get(from).ok_or(ErrorKind::NotFound)?;
        if device(from) != device(to) {
            return Err(ErrorKind::CrossesDevices.into());
        }
        if !over && state.names.contains_key(to) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.rename_step(NameChange::Rename(
            from.to_path_buf(),
            to.to_path_buf(),
            inode,
        ));
        Ok(())
    }
}

/// Applies what is left of a change that was not synced.
fn survive(
    change: &Change,
    data: &mut Vec<u8>,
    random: &mut Random,
    kept: &mut impl FnMut(&mut Random) -> bool,
) {
    let Change::Write(at, bytes) = change else {
        if kept(random) {
            change.apply(data);
        }
        return;
    };
    let mut done = 0;
    while done < bytes.len() {
        let start = at + done;
        let len = (PAGE - start % PAGE).min(bytes.len() - done);
        if kept(random) {
            let torn = random.one_in(8);
            let mut sector = 0;
            while sector < len {
                let part = (SECTOR - (start + sector) % SECTOR).min(len - sector);
                if !torn || random.one_in(2) {
                    let from = done + sector;
                    Change::Write(start + sector, bytes[from..from + part].to_vec()).apply(data);
                }
                sector += part;
            }
        }
        done += len;
    }
}

fn device(path: &Path) -> Option<Component<'_>> {
    path.components()
        .nth(1)
        .filter(|top| top.as_os_str() == "other")
}

impl Vfs for SimVfs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = lock(&self.0);
        state.check_power()?;
        let found = state.names.get(path).copied();
        let inode = match (found, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(ErrorKind::NotFound.into()),
            (None, _) => {
                state.step()?;
                state.next_inode += 1;
                let inode = state.next_inode;
                state.inodes.insert(inode, Inode::default());
                state.rename_step(NameChange::Add(path.to_path_buf(), inode));
                inode
            }
        };
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            inode,
        }))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let state = lock(&self.0);
        state.check_power()?;
        if state.dirs.iter().any(|dir| dir == path) {
            let (len, mtime_seconds, mtime_nanos, inode) = (0, 0, 0, 0);
            return Ok(FileStat {
                len,
                mtime_seconds,
                mtime_nanos,
                inode,
                regular: false,
            });
        }
        let inode = state.names.get(path).ok_or(ErrorKind::NotFound)?;
        Ok(state.stat(*inode))
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename(from, to, false)
    }

    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.rename(from, to, true)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.step()?;
        if !state.names.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.rename_step(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.step()?;
        state.dirs.push(path.to_path_buf());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let state = lock(&self.0);
        state.check_power()?;
        Ok(state
            .names
            .keys()
            .filter(|path| path.parent() == Some(dir))
            .cloned()
            .collect())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = lock(&self.0);
        state.step()?;
        let (synced, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut state.unsynced_names)
            .into_iter()
            .partition(|one| one.is_in(dir));
        state.unsynced_names = rest;
        for change in synced {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn try_lock(&self, _path: &Path) -> io::Result<Option<LockGuard>> {
        Ok(Some(Box::new(())))
    }
}

impl VfsFile for SimFile {
    fn read_at(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> io::Result<usize> {
        let state = lock(&self.disk.0);
        state.check_power()?;
        let data = &state.inodes[&self.inode].data;
        let from = (offset as usize).min(data.len());
        let end = data.len().min(from + len);
        into.extend_from_slice(&data[from..end]);
        Ok(end - from)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.disk.0);
        let short = state.step()?;
        let bytes = if short {
            &bytes[..bytes.len().div_ceil(2)]
        } else {
            bytes
        };
        state.change(self.inode, Change::Write(offset as usize, bytes.to_vec()));
        Ok(bytes.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = lock(&self.disk.0);
        state.step()?;
        state.change(self.inode, Change::SetLen(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = lock(&self.disk.0);
        state.step()?;
        state.sync(self.inode, false);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = lock(&self.disk.0);
        state.step()?;
        state.sync(self.inode, true);
        Ok(())
    }

    fn stat(&self) -> io::Result<FileStat> {
        let state = lock(&self.disk.0);
        state.check_power()?;
        Ok(state.stat(self.inode))
    }
}
