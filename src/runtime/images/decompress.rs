//! Layers and archives as plain tar, whatever they were packed with.
//!
//! The first bytes decide, never a file name or a media type: registries and people mislabel both.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::os::probe;

/// Read ahead of a compressed stream.
const BUFFER_BYTES: usize = 64 * 1024;

/// Largest zstd window, which a decoder holds in memory: up to `--ultra -21`. A layer of three has a
/// sixteenth of the machine's memory, but each what the `zstd` tool reads without being asked.
const ZSTD_WINDOW_BYTES_MAX: u64 = 64 << 20;
const ZSTD_WINDOW_BYTES_MIN: u64 = 8 << 20;
const ZSTD_WINDOW_OF_MEMORY: u64 = 16;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// RFC 8878 section 3.1.1.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// RFC 8878 section 3.1.2: `0x184D2A5?`, little-endian.
const ZSTD_SKIPPABLE_MAGIC: [u8; 3] = [0x2a, 0x4d, 0x18];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// Tells by the first bytes of a stream.
    pub fn of(start: &[u8]) -> Compression {
        let skippable =
            start.len() >= 4 && start[0] & 0xf0 == 0x50 && start[1..4] == ZSTD_SKIPPABLE_MAGIC;
        match start {
            _ if start.starts_with(&GZIP_MAGIC) => Compression::Gzip,
            _ if start.starts_with(&ZSTD_MAGIC) || skippable => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// Reads `source` as plain bytes. Errors: the source's own.
pub fn plain<'a, R: Read + 'a>(source: R) -> io::Result<Box<dyn Read + 'a>> {
    let mut buffered = BufReader::with_capacity(BUFFER_BYTES, source);
    // One read may return less than a magic number; an empty stream is an empty stream.
    let start = peek(&mut buffered)?;
    Ok(match Compression::of(&start) {
        Compression::None => Box::new(io::Cursor::new(start).chain(buffered)),
        Compression::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(
            BUFFER_BYTES,
            io::Cursor::new(start).chain(buffered),
        ))),
        Compression::Zstd => Box::new(Zstd::new(BufReader::with_capacity(
            BUFFER_BYTES,
            io::Cursor::new(start).chain(buffered),
        ))),
    })
}

fn peek(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(ZSTD_MAGIC.len());
    source
        .take(ZSTD_MAGIC.len() as u64)
        .read_to_end(&mut start)?;
    Ok(start)
}

/// All zstd frames of a stream in a row; skippable ones (zstd:chunked's index) are skipped.
struct Zstd<R: BufRead> {
    state: ZstdState<R>,
}

enum ZstdState<R: BufRead> {
    Between(R),
    Frame(R, Box<FrameDecoder>),
    /// Ended or failed.
    Done,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Zstd<R> {
        Zstd {
            state: ZstdState::Between(source),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(&mut self.state, ZstdState::Done) {
                ZstdState::Done => return Ok(0),
                ZstdState::Between(source) => self.state = next_frame(source)?,
                ZstdState::Frame(mut source, mut decoder) => {
                    while decoder.can_collect() == 0 && !decoder.is_finished() {
                        decoder
                            .decode_blocks(&mut source, BlockDecodingStrategy::UptoBlocks(1))
                            .map_err(|error| broken(&error.to_string()))?;
                    }
                    let count = decoder.read(buffer)?;
                    // The frame's own checksum is not computed: digests cover the bytes.
                    self.state = match decoder.is_finished() && decoder.can_collect() == 0 {
                        true => ZstdState::Between(source),
                        false => ZstdState::Frame(source, decoder),
                    };
                    if count > 0 || buffer.is_empty() {
                        return Ok(count);
                    }
                }
            }
        }
    }
}

fn next_frame<R: BufRead>(mut source: R) -> io::Result<ZstdState<R>> {
    if source.fill_buf()?.is_empty() {
        return Ok(ZstdState::Done);
    }
    let mut decoder = FrameDecoder::new();
    let window = probe::memory_bytes() / ZSTD_WINDOW_OF_MEMORY;
    decoder.set_max_window_size(window.clamp(ZSTD_WINDOW_BYTES_MIN, ZSTD_WINDOW_BYTES_MAX));
    match decoder.init(&mut source) {
        Ok(()) => Ok(ZstdState::Frame(source, Box::new(decoder))),
        Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
            length,
            ..
        })) => {
            let length = u64::from(length);
            let skipped = io::copy(&mut source.by_ref().take(length), &mut io::sink())?;
            match skipped == length {
                true => Ok(ZstdState::Between(source)),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Err(FrameDecoderError::WindowSizeTooBig { requested, max }) => {
            let text = format!("a window of {requested} bytes; this machine takes {max}");
            Err(broken(&text))
        }
        Err(error) => Err(broken(&error.to_string())),
    }
}

fn broken(cause: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut plain_bytes = Vec::new();
        plain(io::Cursor::new(bytes))?.read_to_end(&mut plain_bytes)?;
        Ok(plain_bytes)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(bytes, level)
    }

    #[test]
    fn content_decides_how_a_stream_is_read() {
        let text = b"tide ".repeat(10_000);
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let table = [
            text.clone(),
            gzip(&text),
            [gzip(&text[..777]), gzip(&text[777..])].concat(),
            zstd(&text),
            [
                zstd(&text[..777]),
                skippable.clone(),
                zstd(&text[777..]),
                skippable,
            ]
            .concat(),
        ];
        for (row, bytes) in table.into_iter().enumerate() {
            assert!(read(bytes).unwrap() == text, "row {row}");
        }
        assert_eq!(read(Vec::new()).unwrap(), b"");
        assert_eq!(read(vec![0x1f]).unwrap(), [0x1f]);
    }

    #[test]
    fn a_large_window_is_read_and_one_that_is_too_large_is_named() {
        // RFC 8878 section 3.1.1.1.2: 2^(10 + exponent) bytes; then a raw last block of one byte.
        let frame = |exponent: u8| {
            let head = [&ZSTD_MAGIC[..], &[0, exponent << 3]].concat();
            [&head[..], &[0x09, 0, 0, b'x']].concat()
        };
        assert_eq!(read(frame(13)).unwrap(), b"x");
        if probe::memory_bytes() >= 1 << 30 {
            assert_eq!(read(frame(16)).unwrap(), b"x");
        }
        let error = read(frame(17)).unwrap_err().to_string();
        assert!(error.contains("134217728"), "{error}");
    }

    #[test]
    fn a_cut_stream_is_an_error_not_an_end() {
        let text = b"tide ".repeat(10_000);
        for whole in [gzip(&text), zstd(&text)] {
            for cut in [5, whole.len() / 2, whole.len() - 1] {
                assert!(read(whole[..cut].to_vec()).is_err(), "cut at {cut}");
            }
        }
    }
}
