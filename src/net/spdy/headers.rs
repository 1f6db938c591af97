//! Header blocks: names and values, through one zlib stream for each direction of a connection.
//!
//! ```text
//!   count u32 │ length u32, name │ length u32, value │ …      (values of one name: NUL between)
//! ```
//! What comes in is inflated with the preset dictionary. What goes out is not compressed at all:
//! stored blocks are a valid zlib stream, and a compressor would cost memory for each connection.
//!
//! Source: SPDY Protocol Draft 3.1, 2.6.10. Pure.

use flate2::{Decompress, FlushDecompress, Status};

use super::Error;

/// An inflated block; those of Kubernetes are some hundred bytes.
pub const BLOCK_BYTES_MAX: usize = 16 << 10;

/// Checksum of the dictionary, as a stream that uses it names it (RFC 1950, DICTID).
#[cfg(test)]
const DICTIONARY_ADLER: u32 = 0xe3c6_a7c2;

/// The dictionary's first part: each word behind its length.
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];

/// The rest of it, as it is.
const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416\
417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request\
401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service \
UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, \
Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,\
text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,\
utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in WORDS {
        put(&mut bytes, word.as_bytes());
    }
    bytes.extend_from_slice(TAIL.as_bytes());
    bytes
}

/// Names in lower case, and their values, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// `pairs`: names in lower case.
    pub fn of(pairs: &[(&str, &str)]) -> Headers {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Headers(pairs.iter().map(owned).collect())
    }

    /// The first value of a name that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let named = self
            .0
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name));
        let value = named?.1.split('\0').next().unwrap_or_default();
        (!value.is_empty()).then_some(value)
    }

    /// An inflated block. Errors: it ends early, or holds what is not UTF-8.
    pub fn decode(block: &[u8]) -> Result<Headers, Error> {
        let mut rest = block;
        let count = take_u32(&mut rest)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let name = take_text(&mut rest)?;
            pairs.push((name, take_text(&mut rest)?));
        }
        Ok(Headers(pairs))
    }

    fn encode(&self) -> Vec<u8> {
        let mut block = u32::try_from(self.0.len())
            .expect("few headers")
            .to_be_bytes()
            .to_vec();
        for (name, value) in &self.0 {
            put(&mut block, name.as_bytes());
            put(&mut block, value.as_bytes());
        }
        block
    }
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a header is short");
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(bytes);
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, Error> {
    let (head, tail) = rest.split_first_chunk::<4>().ok_or(Error::Headers)?;
    *rest = tail;
    Ok(u32::from_be_bytes(*head))
}

fn take_text(rest: &mut &[u8]) -> Result<String, Error> {
    let length = usize::try_from(take_u32(rest)?).map_err(|_| Error::Headers)?;
    let (text, tail) = rest.split_at_checked(length).ok_or(Error::Headers)?;
    *rest = tail;
    String::from_utf8(text.to_vec()).map_err(|_| Error::Headers)
}

/// The peer's zlib stream.
#[derive(Debug)]
pub struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater(Decompress::new(true))
    }
}

impl Inflater {
    /// The next block, which must be the next in the stream: after an error nothing more is
    /// readable. Errors: no zlib, or longer than [`BLOCK_BYTES_MAX`].
    pub fn block(&mut self, mut input: &[u8]) -> Result<Headers, Error> {
        let mut block = vec![0; BLOCK_BYTES_MAX + 1];
        let mut filled = 0;
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let free = &mut block[filled..];
            let outcome = self.0.decompress(input, free, FlushDecompress::Sync);
            // Both are bounded by the slices just given.
            let consumed = (self.0.total_in() - read) as usize;
            let made = (self.0.total_out() - written) as usize;
            input = &input[consumed..];
            filled += made;
            match outcome {
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.0.set_dictionary(&dictionary());
                    set.map_err(|_| Error::Compression)?;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(Error::Compression),
                Ok(_) if filled > BLOCK_BYTES_MAX => return Err(Error::TooLarge),
                Ok(_) if consumed == 0 && made == 0 => break,
                Ok(_) => {}
            }
        }
        if !input.is_empty() {
            return Err(Error::Compression);
        }
        Headers::decode(&block[..filled])
    }
}

/// Our zlib stream: stored blocks.
#[derive(Debug, Default)]
pub struct Deflater {
    begun: bool,
}

impl Deflater {
    pub fn block(&mut self, headers: &Headers) -> Vec<u8> {
        let block = headers.encode();
        let mut stream = Vec::with_capacity(block.len() + 12);
        if !self.begun {
            // A window of 32 KiB, no dictionary (RFC 1950).
            stream.extend_from_slice(&[0x78, 0x01]);
            self.begun = true;
        }
        let length = u16::try_from(block.len()).expect("our own headers are short");
        stream.push(0);
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(&(!length).to_le_bytes());
        stream.extend_from_slice(&block);
        // An empty block behind it: Go's reader waits for one before it gives out the last.
        stream.extend_from_slice(&[0, 0, 0, 0xff, 0xff]);
        stream
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    use super::*;

    /// Blocks as Go's client compresses them: one stream, the dictionary, a flush after each.
    fn compressed(blocks: &[Headers]) -> Vec<Vec<u8>> {
        let mut stream = Compress::new(Compression::best(), true);
        let adler = stream.set_dictionary(&dictionary()).expect("dictionary");
        assert_eq!(adler, DICTIONARY_ADLER);
        let compress = |headers: &Headers| {
            let mut out = Vec::with_capacity(4096);
            let flush = FlushCompress::Sync;
            stream
                .compress_vec(&headers.encode(), &mut out, flush)
                .expect("compress");
            out
        };
        blocks.iter().map(compress).collect()
    }

    fn samples() -> Vec<Headers> {
        vec![
            Headers::of(&[("streamtype", "error")]),
            Headers::of(&[("streamtype", "data"), ("port", "80"), ("requestid", "0")]),
            Headers::default(),
        ]
    }

    #[test]
    fn the_dictionary_is_the_drafts() {
        assert_eq!(dictionary().len(), 1423);
    }

    #[test]
    fn blocks_are_read_from_compressors_and_from_ourselves() {
        let mut ours = Deflater::default();
        let stored = samples()
            .iter()
            .map(|headers| ours.block(headers))
            .collect();
        for blocks in [compressed(&samples()), stored] {
            let mut inflater = Inflater::default();
            for (block, headers) in blocks.iter().zip(samples()) {
                assert_eq!(inflater.block(block), Ok(headers));
            }
        }
    }

    #[test]
    fn bombs_and_short_blocks_are_refused() {
        let bomb = Headers::of(&[("a", &"x".repeat(BLOCK_BYTES_MAX))]);
        let block = &compressed(&[bomb])[0];
        assert!(block.len() < 200);
        assert_eq!(Inflater::default().block(block), Err(Error::TooLarge));
        let table: [&[u8]; 5] = [
            b"",
            b"\0\0\0",
            b"\0\0\0\x01",
            b"\0\0\0\x01\0\0\0\x09abc",
            b"\xff\xff\xff\xff",
        ];
        for block in table {
            assert_eq!(Headers::decode(block), Err(Error::Headers), "{block:?}");
        }
    }

    #[test]
    fn a_header_is_found_whatever_its_case_and_an_empty_one_is_none() {
        let headers = Headers::of(&[("streamtype", "data\0error"), ("port", "")]);
        assert_eq!(headers.get("streamType"), Some("data"));
        assert_eq!((headers.get("port"), headers.get("x")), (None, None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(blocks in prop::collection::vec(any::<Vec<u8>>(), 1..4)) {
            let mut inflater = Inflater::default();
            for block in &blocks {
                let _ = Headers::decode(block);
                let _ = inflater.block(block);
            }
        }
    }
}
