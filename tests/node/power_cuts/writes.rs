//! What a disk was told, write by write and flush by flush, and what a power cut leaves of it.
//!
//! ```text
//!   flushed, long ago │ flushed lately │ pending: written since the last flush
//!   ──────────────────┼────────────────┼─────────────────────────────────────► cut
//!   always there      │ there, unless  │ by model
//!                     │ the card lied  │
//! ```
//! A record is kept in the format of dm-log-writes
//! (Documentation/admin-guide/device-mapper/log-writes.rst).

use std::collections::VecDeque;

const SECTOR: usize = 512;
const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLAG_FLUSH: u64 = 1;
/// Flushes that a lying card has answered without having done them, at most.
const LIES_MAX: usize = 8;

/// One entry of the record.
#[derive(Debug, PartialEq)]
pub enum Entry {
    Write { offset: usize, bytes: Vec<u8> },
    Flush,
}

/// Four numbers at the start of a sector.
fn sector_of(numbers: [u64; 4]) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    for (place, number) in sector.chunks_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    sector
}

pub fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut log = sector_of([MAGIC, VERSION, entries.len() as u64, SECTOR as u64]).to_vec();
    for entry in entries {
        match entry {
            Entry::Flush => log.extend(sector_of([0, 0, FLAG_FLUSH, 0])),
            Entry::Write { offset, bytes } => {
                let (at, length) = (offset / SECTOR, bytes.len() / SECTOR);
                log.extend(sector_of([at as u64, length as u64, 0, 0]));
                log.extend(bytes);
            }
        }
    }
    log
}

/// Panics if it is no record: this test has made it.
pub fn decode(log: &[u8]) -> Vec<Entry> {
    let number = |at: usize| u64::from_le_bytes(log[at..at + 8].try_into().unwrap());
    assert_eq!(number(0), MAGIC, "not a write log");
    let mut at = SECTOR;
    let mut entries = Vec::new();
    for _ in 0..number(16) {
        let (offset, length) = (number(at) as usize, number(at + 8) as usize);
        let flags = number(at + 16);
        at += SECTOR;
        if flags & FLAG_FLUSH != 0 {
            entries.push(Entry::Flush);
            continue;
        }
        let end = at + length * SECTOR;
        entries.push(Entry::Write {
            offset: offset * SECTOR,
            bytes: log[at..end].to_vec(),
        });
        at = end;
    }
    entries
}

/// What becomes of writes that no flush covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Model {
    /// None arrived: a volatile cache that was simply lost.
    Nothing,
    /// All arrived: what killing the virtual machine leaves.
    Everything,
    /// The first few arrived.
    Prefix,
    /// Each arrived or not, on its own: the order is the drive's.
    Subset,
    /// As `Subset`, and of one write only some sectors.
    Torn,
    /// As `Subset`, with the last few flushes answered and not done.
    Lying,
}

pub const MODELS: [Model; 6] = [
    Model::Nothing,
    Model::Everything,
    Model::Prefix,
    Model::Subset,
    Model::Torn,
    Model::Lying,
];

/// xorshift64*: good enough to tell seeds apart.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// A disk that is told the entries of a record one after the other.
pub struct Disk<'a> {
    /// All that is beyond doubt, even for a card that lies.
    platter: Vec<u8>,
    /// Writes that the last few flushes cover, one list for each.
    flushed: VecDeque<Vec<&'a Entry>>,
    pending: Vec<&'a Entry>,
}

impl<'a> Disk<'a> {
    pub fn new(platter: Vec<u8>) -> Disk<'a> {
        Disk {
            platter,
            flushed: VecDeque::new(),
            pending: Vec::new(),
        }
    }

    pub fn tell(&mut self, entry: &'a Entry) {
        match entry {
            Entry::Write { .. } => self.pending.push(entry),
            Entry::Flush => {
                self.flushed.push_back(std::mem::take(&mut self.pending));
                if self.flushed.len() > LIES_MAX {
                    for write in self.flushed.pop_front().unwrap() {
                        put(&mut self.platter, write, |_| true);
                    }
                }
            }
        }
    }

    /// The bytes of the disk after a cut at this moment.
    pub fn cut(&self, model: Model, dice: &mut Dice) -> Vec<u8> {
        let mut image = self.platter.clone();
        let lies = match model {
            Model::Lying => 1 + dice.below(self.flushed.len()),
            _ => 0,
        };
        let honest = self.flushed.len().saturating_sub(lies);
        for write in self.flushed.iter().take(honest).flatten() {
            put(&mut image, write, |_| true);
        }
        let doubtful = self.flushed.iter().skip(honest).flatten();
        let doubtful: Vec<_> = doubtful.chain(&self.pending).copied().collect();
        let arrived: Vec<_> = match model {
            Model::Nothing => Vec::new(),
            Model::Everything => doubtful,
            Model::Prefix => doubtful[..dice.below(doubtful.len() + 1)].to_vec(),
            Model::Subset | Model::Torn | Model::Lying => {
                doubtful.into_iter().filter(|_| dice.coin()).collect()
            }
        };
        let torn = match model {
            Model::Torn => dice.below(arrived.len()),
            _ => usize::MAX,
        };
        for (number, write) in arrived.into_iter().enumerate() {
            put(&mut image, write, |_| number != torn || dice.coin());
        }
        image
    }
}

/// Writes those sectors of a write that arrive.
fn put(image: &mut [u8], entry: &Entry, mut arrives: impl FnMut(usize) -> bool) {
    let Entry::Write { offset, bytes } = entry else {
        return;
    };
    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
        if arrives(number) {
            let at = offset + number * SECTOR;
            image[at..at + sector.len()].copy_from_slice(sector);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(sector: usize, byte: u8) -> Entry {
        Entry::Write {
            offset: sector * SECTOR,
            bytes: vec![byte; 2 * SECTOR],
        }
    }

    /// First byte of each sector.
    fn sectors(image: &[u8]) -> Vec<u8> {
        image.chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    #[test]
    fn only_what_no_flush_covers_is_in_doubt_unless_the_card_lies() {
        let mut entries = vec![write(0, 1), Entry::Flush, write(2, 2), write(4, 3)];
        let left = |model, seeds: u64| {
            let mut disk = Disk::new(vec![0; 6 * SECTOR]);
            entries.iter().for_each(|entry| disk.tell(entry));
            let cuts = (0..seeds).map(|seed| sectors(&disk.cut(model, &mut Dice::new(seed))));
            cuts.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(left(Model::Nothing, 9), [vec![1, 1, 0, 0, 0, 0]].into());
        assert_eq!(left(Model::Everything, 9), [vec![1, 1, 2, 2, 3, 3]].into());
        assert_eq!(left(Model::Prefix, 99).len(), 3);
        assert_eq!(left(Model::Subset, 99).len(), 4);
        // Both whole or absent; or one of them half, in two ways, and the other whole or absent.
        assert_eq!(left(Model::Torn, 999).len(), 4 + 2 * 2 * 2);
        assert_eq!(left(Model::Lying, 99).len(), 8);
        assert!(left(Model::Torn, 999).iter().all(|cut| cut[..2] == [1, 1]));
        entries.push(Entry::Flush);
        assert_eq!(decode(&encode(&entries)), entries);
        let mut disk = Disk::new(vec![0; 6 * SECTOR]);
        entries.iter().for_each(|entry| disk.tell(entry));
        for model in &MODELS[..5] {
            let image = disk.cut(*model, &mut Dice::new(7));
            assert_eq!(sectors(&image), [1, 1, 2, 2, 3, 3], "{model:?}");
        }
    }
}
