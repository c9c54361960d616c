//! Compresses one body, piece by piece, in memory.
//!
//! Decides nothing. What it holds is bounded, however long the body: the window and the tables of the algorithm, and the
//! output of one piece, which is handed out at once. Never waits. Measured on long texts, in MiB for each body:
//!
//! | | fast | balanced | best |
//! |---|---|---|---|
//! | zstd | 1 | 2 | 2 |
//! | br | 1½ | 4 | 7 |
//! | gzip | ½ | ½ | ½ |

use std::fmt;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;
use zstd::zstd_safe::CParameter;

use super::{Algorithm, Level};

/// The library could not compress: out of memory, or a defect.
#[derive(Debug, thiserror::Error)]
#[error("the body could not be compressed: {0}")]
pub struct EncoderError(#[from] io::Error);

/// Window of zstd, as a power of two: 512 KiB. RFC 9659 allows 23; a gateway holds many at once.
const ZSTD_WINDOW: u32 = 19;
/// The tables of zstd's best level, as powers of two of entries; left alone they would take 11 MiB for 2 % of size.
const ZSTD_BEST_TABLES: [CParameter; 2] = [CParameter::HashLog(17), CParameter::ChainLog(16)];
/// Brotli's output passes through a buffer of this size.
const BROTLI_BUFFER: usize = 4096;

/// The state of one body.
pub struct Encoder(Stream);

enum Stream {
    Zstd(zstd::Encoder<'static, Vec<u8>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    /// The encoder for a body.
    pub fn new(algorithm: Algorithm, level: Level) -> Result<Self, EncoderError> {
        Ok(Self(match algorithm {
            Algorithm::Zstd => {
                let (quality, tables) = match level {
                    Level::Fast => (1, [].as_slice()),
                    Level::Balanced => (3, [].as_slice()),
                    Level::Best => (9, ZSTD_BEST_TABLES.as_slice()),
                };
                let mut stream = zstd::Encoder::new(Vec::new(), quality)?;
                stream.set_parameter(CParameter::WindowLog(ZSTD_WINDOW))?;
                for table in tables {
                    stream.set_parameter(*table)?;
                }
                Stream::Zstd(stream)
            }
            Algorithm::Br => {
                // The window is a power of two. Above quality 5 the tables grow to 30 MiB.
                let (quality, window) = match level {
                    Level::Fast => (2, 18),
                    Level::Balanced => (4, 18),
                    Level::Best => (5, 19),
                };
                let stream = brotli::CompressorWriter::new(Vec::new(), BROTLI_BUFFER, quality, window);
                Stream::Br(Box::new(stream))
            }
            Algorithm::Gzip => {
                let level = match level {
                    Level::Fast => 1,
                    Level::Balanced => 6,
                    Level::Best => 9,
                };
                Stream::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(level)))
            }
        }))
    }

    /// Takes a piece of the body; returns what is ready to be sent, often nothing.
    pub fn push(&mut self, piece: &[u8]) -> Result<Bytes, EncoderError> {
        self.writer().write_all(piece)?;
        Ok(self.take())
    }

    /// Returns what it takes to decode everything that was pushed so far. Costs a few bytes each time.
    pub fn flush(&mut self) -> Result<Bytes, EncoderError> {
        self.writer().flush()?;
        Ok(self.take())
    }

    /// Ends the body; returns its last bytes.
    pub fn finish(self) -> Result<Bytes, EncoderError> {
        let rest = match self.0 {
            Stream::Zstd(stream) => stream.finish()?,
            Stream::Br(stream) => stream.into_inner(),
            Stream::Gzip(stream) => stream.finish()?,
        };
        Ok(rest.into())
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.0 {
            Stream::Zstd(stream) => stream,
            Stream::Br(stream) => stream,
            Stream::Gzip(stream) => stream,
        }
    }

    fn take(&mut self) -> Bytes {
        let output = match &mut self.0 {
            Stream::Zstd(stream) => stream.get_mut(),
            Stream::Br(stream) => stream.get_mut(),
            Stream::Gzip(stream) => stream.get_mut(),
        };
        std::mem::take(output).into()
    }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithm = match &self.0 {
            Stream::Zstd(_) => Algorithm::Zstd,
            Stream::Br(_) => Algorithm::Br,
            Stream::Gzip(_) => Algorithm::Gzip,
        };
        f.debug_tuple("Encoder").field(&algorithm).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALGORITHMS: [Algorithm; 3] = [Algorithm::Zstd, Algorithm::Br, Algorithm::Gzip];

    /// A client that decodes what has come as it comes.
    enum Client {
        Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
        Br(Box<brotli::DecompressorWriter<Vec<u8>>>),
        Gzip(flate2::write::GzDecoder<Vec<u8>>),
    }

    impl Client {
        fn new(algorithm: Algorithm) -> Self {
            match algorithm {
                Algorithm::Zstd => Self::Zstd(zstd::stream::write::Decoder::new(Vec::new()).expect("a decoder")),
                // this decoder keeps back what does not fit its buffer until more input comes
                Algorithm::Br => Self::Br(Box::new(brotli::DecompressorWriter::new(Vec::new(), 1 << 20))),
                Algorithm::Gzip => Self::Gzip(flate2::write::GzDecoder::new(Vec::new())),
            }
        }

        /// Everything that it has decoded once `encoded` has come as well; the stream need not be complete.
        fn receive(&mut self, encoded: &[u8]) -> &[u8] {
            let decoder: &mut dyn Write = match self {
                Self::Zstd(decoder) => decoder,
                Self::Br(decoder) => decoder,
                Self::Gzip(decoder) => decoder,
            };
            decoder.write_all(encoded).expect("valid");
            decoder.flush().expect("in memory");
            match self {
                Self::Zstd(decoder) => decoder.get_ref(),
                Self::Br(decoder) => decoder.get_ref(),
                Self::Gzip(decoder) => decoder.get_ref(),
            }
        }
    }

    fn decoded(algorithm: Algorithm, encoded: &[u8]) -> Vec<u8> {
        Client::new(algorithm).receive(encoded).to_vec()
    }

    fn encoder(algorithm: Algorithm) -> Encoder {
        Encoder::new(algorithm, Level::Balanced).expect("an encoder")
    }

    #[test]
    fn a_flush_makes_everything_pushed_so_far_decodable() {
        for algorithm in ALGORITHMS {
            for level in [Level::Fast, Level::Balanced, Level::Best] {
                let mut encoder = Encoder::new(algorithm, level).expect("an encoder");
                let (mut client, mut pushed) = (Client::new(algorithm), Vec::new());
                for event in 0..50 {
                    let piece = format!("data: event {event}\n\n");
                    pushed.extend_from_slice(piece.as_bytes());
                    client.receive(&encoder.push(piece.as_bytes()).expect("compressed"));
                    let seen = client.receive(&encoder.flush().expect("flushed"));
                    assert_eq!(seen, pushed, "{algorithm:?} {level:?} after event {event}");
                }
            }
        }
    }

    #[test]
    fn every_level_compresses() {
        let text = "the quick brown fox jumps over the lazy dog. ".repeat(500);
        for algorithm in ALGORITHMS {
            for level in [Level::Fast, Level::Balanced, Level::Best] {
                let mut encoder = Encoder::new(algorithm, level).expect("an encoder");
                let mut sent = encoder.push(text.as_bytes()).expect("compressed").to_vec();
                sent.extend_from_slice(&encoder.finish().expect("ended"));
                assert!(sent.len() * 10 < text.len(), "{algorithm:?} {level:?}: {}", sent.len());
                assert_eq!(decoded(algorithm, &sent), text.as_bytes());
            }
        }
    }

    #[test]
    fn an_empty_body_is_a_valid_stream() {
        for algorithm in ALGORITHMS {
            let sent = encoder(algorithm).finish().expect("ended");
            assert!(!sent.is_empty() && decoded(algorithm, &sent).is_empty(), "{algorithm:?}");
        }
    }

    #[test]
    fn output_is_handed_out_and_not_hoarded() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random.to_le_bytes()
        })
        .take(1 << 16)
        .flatten()
        .collect();
        for algorithm in ALGORITHMS {
            let mut encoder = encoder(algorithm);
            let (mut pushed, mut sent, mut held) = (0, 0, 0);
            for piece in noise.chunks(16 * 1024) {
                pushed += piece.len();
                sent += encoder.push(piece).expect("compressed").len();
                held = held.max(pushed - sent.min(pushed));
            }
            assert!(held <= 1 << 20, "{algorithm:?} held back {held} bytes");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_pushed_is_what_is_decoded(
            pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), 1_usize..40, any::<bool>()), 0..12),
            which in 0_usize..3,
        ) {
            let algorithm = ALGORITHMS[which];
            let mut encoder = encoder(algorithm);
            let (mut client, mut pushed) = (Client::new(algorithm), Vec::new());
            for (piece, times, flush) in pieces {
                let piece = piece.repeat(times);
                client.receive(&encoder.push(&piece).expect("compressed"));
                pushed.extend_from_slice(&piece);
                if flush {
                    let seen = client.receive(&encoder.flush().expect("flushed"));
                    prop_assert!(seen == pushed, "{:?} after a flush", algorithm);
                }
            }
            let seen = client.receive(&encoder.finish().expect("ended"));
            prop_assert!(seen == pushed, "{:?} at the end", algorithm);
        }
    }
}
