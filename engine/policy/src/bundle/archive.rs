//! The archive of a bundle: a gzip member (RFC 1952) with a tar file of regular files only
//! (POSIX.1-1988 ustar).
//!
//! Written reproducibly: sorted paths, no times, owners or names, one mode. Read strictly, and as a
//! stream: nothing is believed of what an archive says of itself before it was counted.

use std::collections::BTreeMap;
use std::io::{self, Read, Write as _};

use flate2::bufread::GzDecoder;
use flate2::{Compression, GzBuilder};

use super::SIGNATURE;
use super::files::{Files, MAX_BUNDLE_BYTES, MAX_FILE_BYTES, check_path, limit};
use crate::error::Fault;

/// How an archive begins (RFC 1952 section 2.3.1).
pub(super) const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Largest archive in bytes: a bundle of full size that does not compress, with every header.
pub(super) const MAX_ARCHIVE_BYTES: u64 = MAX_BUNDLE_BYTES + (8 << 20);
/// Bytes of a tar block.
const BLOCK: usize = 512;
/// Most zero bytes at the end: two blocks end an archive, and `tar` fills up to 20 of them.
const MAX_PADDING_BYTES: u64 = 2 * 20 * 512;
/// Mode of every file: all may read, the owner may write.
const MODE: u32 = 0o644;
/// Operating system in the gzip header: unknown (RFC 1952 section 2.3.1), so that every system
/// writes the same.
const UNKNOWN_SYSTEM: u8 = 255;
const REMEDY: &str = "make the archive with `placet bundle build`";

/// Splits a path into `prefix` and `name` of a ustar header; none if it fits none.
pub(super) fn split(path: &str) -> Option<(&str, &str)> {
    const MAX_NAME: usize = 100;
    const MAX_PREFIX: usize = 155;
    if path.len() <= MAX_NAME {
        return Some(("", path));
    }
    let fits = |(prefix, name): &(&str, &str)| prefix.len() <= MAX_PREFIX && name.len() <= MAX_NAME;
    // The shortest prefix whose rest fits, so that one path has one header.
    let slashes = path.match_indices('/');
    slashes.filter_map(|(at, _)| Some((path.get(..at)?, path.get(at + 1..)?))).find(fits)
}

/// Writes an archive. Same files and signature, same bytes.
pub(super) fn write(files: &BTreeMap<String, Vec<u8>>, signature: Option<&str>) -> Vec<u8> {
    let gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(UNKNOWN_SYSTEM)
        .write(Vec::new(), Compression::best());
    let mut tar = tar::Builder::new(gzip);
    let signature = signature.map(|text| format!("{text}\n").into_bytes());
    let signature = signature.as_ref().map(|bytes| (SIGNATURE, bytes));
    let mut all: BTreeMap<&str, &Vec<u8>> = files.iter().map(|(p, b)| (p.as_str(), b)).collect();
    all.extend(signature);
    let mut written = Ok(());
    for (path, bytes) in all {
        written = written.and_then(|()| append(&mut tar, path, bytes));
    }
    written
        .and_then(|()| tar.into_inner())
        .and_then(flate2::write::GzEncoder::finish)
        .expect("writing to memory works, and every path was checked to fit a header")
}

fn append<W: io::Write>(tar: &mut tar::Builder<W>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    let (prefix, name) = split(path).ok_or(io::ErrorKind::InvalidFilename)?;
    let fields = header.as_ustar_mut().ok_or(io::ErrorKind::InvalidData)?;
    fields.prefix.as_mut_slice().write_all(prefix.as_bytes())?;
    fields.name.as_mut_slice().write_all(name.as_bytes())?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(MODE);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(u64::try_from(bytes.len()).map_err(io::Error::other)?);
    header.set_cksum();
    tar.append(&header, bytes)
}

/// Reads an archive; `name` is what errors call it as a whole.
pub(super) fn read(name: &str, bytes: &[u8]) -> Result<Files, Fault> {
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_ARCHIVE_BYTES) {
        let message = format!("has more than {MAX_ARCHIVE_BYTES} bytes");
        return Err(Fault::new(name, message).hint("keep only policies and their cases in it"));
    }
    if !bytes.starts_with(&MAGIC) {
        let fault = Fault::new(name, "is not an archive of a bundle: it is not compressed by gzip");
        return Err(fault.hint(REMEDY));
    }
    let mut archive = Stream { name, tar: GzDecoder::new(bytes) };
    let mut files = Files::new();
    let mut block = [0; BLOCK];
    loop {
        let what = "at the header of its next file";
        archive.exactly(&mut block, what)?;
        if block == [0; BLOCK] {
            break;
        }
        let (path, size) = entry(&block, name)?;
        let max = limit(&path);
        if size > max {
            let message = format!("has {size} bytes, at most {max} are allowed");
            return Err(Fault::new(path, message).hint("split it, or leave it out"));
        }
        let content = archive.content(&path, size)?;
        files.add(path, content)?;
    }
    archive.end()?;
    Ok(files)
}

struct Stream<'a> {
    name: &'a str,
    tar: GzDecoder<&'a [u8]>,
}

impl Stream<'_> {
    fn broken(&self, error: &io::Error, place: &str) -> Fault {
        let message = if error.kind() == io::ErrorKind::UnexpectedEof {
            format!("is cut short {place}")
        } else {
            format!("is damaged {place}: {error}")
        };
        Fault::new(self.name, message).hint("fetch it again, or build it again")
    }

    fn exactly(&mut self, bytes: &mut [u8], place: &str) -> Result<(), Fault> {
        self.tar.read_exact(bytes).map_err(|error| self.broken(&error, place))
    }

    /// The bytes of a file, and the zeros that fill its last block.
    fn content(&mut self, path: &str, size: u64) -> Result<Vec<u8>, Fault> {
        let place = format!("in `{path}`");
        // Not reserved beforehand: the size is only what the header says.
        let mut content = Vec::new();
        let read = (&mut self.tar).take(size).read_to_end(&mut content);
        read.map_err(|error| self.broken(&error, &place))?;
        let length = content.len();
        if u64::try_from(length).is_ok_and(|length| length < size) {
            return Err(self.broken(&io::ErrorKind::UnexpectedEof.into(), &place));
        }
        let mut padding = [0; BLOCK];
        let used = length.next_multiple_of(BLOCK).saturating_sub(length);
        let padding = padding.get_mut(..used).unwrap_or_default();
        self.exactly(padding, &place)?;
        if padding.iter().any(|byte| *byte != 0) {
            let message = "is followed by bytes that belong to no file";
            return Err(Fault::new(path, message).hint(REMEDY));
        }
        Ok(content)
    }

    /// Checks that nothing but zeros follows, that the checksum holds, and that nothing follows the
    /// gzip member.
    fn end(mut self) -> Result<(), Fault> {
        let mut rest = Vec::new();
        let read = (&mut self.tar).take(MAX_PADDING_BYTES).read_to_end(&mut rest);
        read.map_err(|error| self.broken(&error, "after its last file"))?;
        let over = |message: &str| Err(Fault::new(self.name, message).hint(REMEDY));
        if rest.len() < BLOCK {
            return over("is cut short: two blocks of zeros end an archive");
        }
        if rest.iter().any(|byte| *byte != 0) {
            return over("goes on after its end");
        }
        match self.tar.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return over("goes on after its end"),
            Err(error) => return Err(self.broken(&error, "after its last file")),
        }
        if !self.tar.into_inner().is_empty() {
            let message = "has something after the compressed bytes";
            return Err(Fault::new(self.name, message).hint(REMEDY));
        }
        Ok(())
    }
}

/// Path and size of the file that a header announces.
fn entry(block: &[u8; BLOCK], archive: &str) -> Result<(String, u64), Fault> {
    let header = tar::Header::from_byte_slice(block);
    let Some(fields) = header.as_ustar() else {
        let message = "has a header that is not of the format ustar";
        return Err(Fault::new(archive, message).hint(REMEDY));
    };
    let counted = block.iter().enumerate().map(|(at, byte)| {
        // The checksum counts its own field as spaces (POSIX.1-1988 section 10.1.1).
        u32::from(if (148..156).contains(&at) { b' ' } else { *byte })
    });
    if !header.cksum().is_ok_and(|stored| stored == counted.sum::<u32>()) {
        let fault = Fault::new(archive, "has a header whose checksum does not hold");
        return Err(fault.hint("fetch it again, or build it again"));
    }
    let path = match (field(&fields.prefix), field(&fields.name)) {
        (Some([]), Some(name)) => Some(name.to_vec()),
        (Some(prefix), Some(name)) => Some([prefix, b"/", name].concat()),
        (Some(_) | None, None) | (None, Some(_)) => None,
    };
    let Some(path) = path.and_then(|path| String::from_utf8(path).ok()) else {
        let fault = Fault::new(archive, "has a file whose path is not plain UTF-8");
        return Err(fault.hint("rename it"));
    };
    if let Err((what, hint)) = kind(&fields.typeflag) {
        let shown: String = path.chars().flat_map(char::escape_default).collect();
        return Err(Fault::new(shown, what).hint(hint));
    }
    check_path(&path)?;
    if field(&fields.linkname) != Some(&[]) {
        let message = "is a file with the target of a link";
        return Err(Fault::new(path, message).hint(REMEDY));
    }
    match octal(&fields.size).filter(|size| *size <= MAX_FILE_BYTES) {
        Some(size) => Ok((path, size)),
        None => {
            let message = format!("has a size that is not 0 to {MAX_FILE_BYTES} bytes");
            Err(Fault::new(path, message).hint("split it, or leave it out"))
        }
    }
}

/// Text of a header's field: all up to the first zero byte, with nothing but zeros behind.
fn field(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, rest) = bytes.split_at_checked(end)?;
    rest.iter().all(|byte| *byte == 0).then_some(text)
}

/// A number of octal digits, ended by a zero byte or a space. The other forms that `tar` knows are
/// for sizes beyond our limit.
fn octal(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches(['\0', ' ']);
    if text.is_empty() || !text.bytes().all(|byte| matches!(byte, b'0'..=b'7')) {
        return None;
    }
    u64::from_str_radix(text, 8).ok()
}

/// Refuses everything but a regular file.
fn kind(flag: &[u8; 1]) -> Result<(), (&'static str, &'static str)> {
    let plain = "put the file itself there";
    Err(match flag {
        b"0" => return Ok(()),
        b"1" => ("is a hard link", plain),
        b"2" => ("is a symbolic link", plain),
        b"3" | b"4" => ("is a device", plain),
        b"5" => ("is an entry of a directory; an archive holds files only", REMEDY),
        b"6" => ("is a pipe", plain),
        b"L" | b"K" => ("is a long name of GNU tar; paths fit the header or are too long", REMEDY),
        b"S" => ("is a sparse file", REMEDY),
        b"x" | b"g" => ("is an extended header (pax), which could rename files", REMEDY),
        _ => ("is not a regular file", REMEDY),
    })
}
