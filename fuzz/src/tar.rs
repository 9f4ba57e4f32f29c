//! What makes bytes an archive that a reader does not refuse at once.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Bytes of a block of a tar archive, and so of a header.
const BLOCK: usize = 512;
/// Where a header has its checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// Where a header has its size, in octal digits.
const SIZE: std::ops::Range<usize> = 124..135;

/// The bytes in gzip's form.
pub(crate) fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("writing to memory works");
    encoder.finish().expect("writing to memory works")
}

/// The same tar archive with the checksum of every header put right (POSIX.1-2017, pax, "ustar
/// Interchange Format"): the sum of its bytes, with spaces in the place of the checksum.
pub(crate) fn with_checksums(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while let Some(header) = bytes.get_mut(at..at + BLOCK) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if let Some(checksum) = header.get_mut(CHECKSUM) {
            checksum.fill(b' ');
        }
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        if let Some(checksum) = header.get_mut(CHECKSUM) {
            checksum.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let size = header.get(SIZE).and_then(|digits| std::str::from_utf8(digits).ok());
        let size = size.and_then(|digits| usize::from_str_radix(digits, 8).ok()).unwrap_or(0);
        at += BLOCK + size.div_ceil(BLOCK) * BLOCK;
    }
    bytes
}

/// One entry: a header and the content, padded to whole blocks.
pub(crate) fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    let mut write = |at: usize, text: &[u8]| {
        for (place, byte) in header.iter_mut().skip(at).zip(text) {
            *place = *byte;
        }
    };
    write(0, name.as_bytes().get(..100).unwrap_or(name.as_bytes()));
    write(100, b"0000644\0");
    write(108, b"0000000\0");
    write(116, b"0000000\0");
    write(124, format!("{:011o}\0", content.len()).as_bytes());
    write(136, b"00000000000\0");
    write(156, &[kind]);
    write(257, b"ustar\x0000");
    let mut bytes = header;
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A tar archive of entries, ended as POSIX says.
pub(crate) fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1_024, 0);
    with_checksums(bytes)
}
