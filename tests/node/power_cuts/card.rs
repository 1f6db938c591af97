//! A memory card whose every write and flush is recorded: a file of a file system that this test
//! itself serves, behind a loop device.
//!
//! ```text
//!   ext4 ─► loop device ─► FUSE: WRITE, FSYNC ─► bytes, record
//! ```
//! One request after the other is answered, so the record is in an order that the writers cannot tell
//! from the real one. Source: Linux include/uapi/linux/fuse.h, protocol 7.31.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread::JoinHandle;

use nix::mount::{MsFlags, mount};

use super::writes::Entry;

const IN_HEADER_BYTES: usize = 40;
const OUT_HEADER_BYTES: usize = 16;
/// Arguments of READ and WRITE, before the data.
const TRANSFER_BYTES: usize = 40;
/// Largest write, as the kernel has it without FUSE_MAX_PAGES.
const WRITE_BYTES_MAX: usize = 128 << 10;
const ENOSYS: i32 = 38;

/// What the kernel asks for; everything else is refused.
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;

pub struct Card {
    server: JoinHandle<Vec<Entry>>,
}

struct Server {
    kernel: File,
    bytes: Vec<u8>,
    record: Vec<Entry>,
}

impl Card {
    /// Serves `bytes` as the file `at`, which must exist. Ends when that is unmounted.
    pub fn insert(bytes: Vec<u8>, at: &Path) -> Card {
        let kernel = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let kernel = kernel.expect("/dev/fuse");
        let fd = kernel.as_raw_fd();
        let options = format!("fd={fd},rootmode=100600,user_id=0,group_id=0");
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("card"),
            at,
            Some("fuse"),
            flags,
            Some(options.as_str()),
        )
        .expect("a FUSE mount");
        let server = Server {
            kernel,
            bytes,
            record: Vec::new(),
        };
        Card {
            server: std::thread::spawn(move || server.run()),
        }
    }

    /// The record, once the card is unmounted.
    pub fn record(self) -> Vec<Entry> {
        self.server.join().expect("the card works")
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A C structure of 32-bit words.
fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl Server {
    fn run(mut self) -> Vec<Entry> {
        let mut buffer = vec![0; IN_HEADER_BYTES + TRANSFER_BYTES + WRITE_BYTES_MAX + 4096];
        loop {
            let length = match self.kernel.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Unmounted.
                Err(_) => return self.record,
            };
            let request = &buffer[..length];
            let unique = u64_at(request, 8);
            let Some(answer) = self.answer(u32_at(request, 4), &request[IN_HEADER_BYTES..]) else {
                continue;
            };
            let (error, body) = match answer {
                Ok(body) => (0, body),
                Err(error) => (-error, Vec::new()),
            };
            let length = (OUT_HEADER_BYTES + body.len()) as u32;
            let mut message = words(&[length, error as u32]);
            message.extend(unique.to_ne_bytes());
            message.extend(body);
            // A request that was given up meanwhile: nobody waits.
            let _ = self.kernel.write(&message);
        }
    }

    /// `None`: this request has no answer.
    fn answer(&mut self, opcode: u32, body: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        let range = || {
            let at = u64_at(body, 8) as usize;
            at..(at + u32_at(body, 16) as usize)
        };
        Some(Ok(match opcode {
            FORGET | BATCH_FORGET | INTERRUPT => return None,
            INIT => {
                // Version, read-ahead, flags, background, largest write, granularity of times, none.
                let mut answer = vec![7, 31, 0, 0, 0x0010_0010, WRITE_BYTES_MAX as u32, 1];
                answer.resize(16, 0);
                words(&answer)
            }
            GETATTR => self.attributes(),
            // A handle; direct I/O: this file is never cached.
            OPEN => words(&[0, 0, 1, 0]),
            READ => {
                let range = range();
                let end = range.end.min(self.bytes.len());
                self.bytes[range.start.min(end)..end].to_vec()
            }
            WRITE => {
                let data = &body[TRANSFER_BYTES..];
                let offset = range().start;
                self.bytes[range()].copy_from_slice(data);
                self.record.push(Entry::Write {
                    offset,
                    bytes: data.to_vec(),
                });
                words(&[data.len() as u32, 0])
            }
            FSYNC => {
                self.record.push(Entry::Flush);
                Vec::new()
            }
            RELEASE | DESTROY => Vec::new(),
            _ => return Some(Err(ENOSYS)),
        }))
    }

    /// A regular file of root's.
    fn attributes(&self) -> Vec<u8> {
        let size = self.bytes.len() as u64;
        let mut answer = words(&[0; 4]);
        for number in [1, size, size / 512, 0, 0, 0] {
            answer.extend(number.to_ne_bytes());
        }
        // Nanoseconds of three times; mode, links, owner, group, device, block size, flags.
        answer.extend(words(&[0, 0, 0, 0o100_600, 1, 0, 0, 0, 4096, 0]));
        answer
    }
}
