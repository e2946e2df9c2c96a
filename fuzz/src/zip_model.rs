//! The files of a plain zip, read in the plainest way: for zips that were accepted, so that every offset is one.

use miniz_oxide::inflate::decompress_to_vec_with_limit;

/// Names and contents in the order of the directory; `None` for what has zip64 fields or something in front of it.
pub(crate) fn files(zip: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let end = zip.windows(4).rposition(|window| window == b"PK\x05\x06")?;
    let (size, offset) = (u32_at(zip, end + 12)?, u32_at(zip, end + 16)?);
    if offset.checked_add(size)? != end {
        return None;
    }
    let mut files = Vec::new();
    let mut at = offset;
    while zip.get(at..at + 4) == Some(b"PK\x01\x02") {
        let method = u16_at(zip, at + 10)?;
        let (packed, size) = (u32_at(zip, at + 20)?, u32_at(zip, at + 24)?);
        let lengths = [u16_at(zip, at + 28)?, u16_at(zip, at + 30)?, u16_at(zip, at + 32)?];
        let local = u32_at(zip, at + 42)?;
        if [packed, size, local].contains(&(u32::MAX as usize)) {
            return None;
        }
        let name = zip.get(at + 46..at + 46 + lengths[0])?;
        let data = local + 30 + u16_at(zip, local + 26)? + u16_at(zip, local + 28)?;
        let name = String::from_utf8(name.to_vec()).expect("only UTF-8 is accepted");
        let content = if name.ends_with('/') {
            Vec::new()
        } else {
            let packed = &zip[data..zip.len().min(data + packed)];
            match method {
                0 => packed.to_vec(),
                _ => decompress_to_vec_with_limit(packed, size).expect("it was inflated before"),
            }
        };
        assert_eq!(content.len(), if name.ends_with('/') { 0 } else { size }, "{name:?}");
        files.push((name, content));
        at += 46 + lengths.iter().sum::<usize>();
    }
    Some(files)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
}
