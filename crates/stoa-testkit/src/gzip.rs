//! A gzip of stored blocks: enough to see whether a client undoes the encoding. And one that is far larger inside.

/// RFC 1952 around RFC 1951 blocks that are not compressed.
pub(crate) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut chunks = data.chunks(0xffff).peekable();
    if chunks.peek().is_none() {
        out.extend([1, 0, 0, 0xff, 0xff]);
    }
    while let Some(chunk) = chunks.next() {
        let len = chunk.len() as u16;
        out.push(u8::from(chunks.peek().is_none()));
        out.extend(len.to_le_bytes());
        out.extend((!len).to_le_bytes());
        out.extend(chunk);
    }
    out.extend(crc32(data).to_le_bytes());
    out.extend((data.len() as u32).to_le_bytes());
    out
}

/// The beginning of a gzip of at least so many zeros: a literal, then copies of 258 bytes from one byte before. It has
/// no end; whoever reads that far has already been caught.
pub(crate) fn gzip_of_zeros(zeros: u64) -> Vec<u8> {
    /// Eight copies are 13 bytes, so that the stream repeats itself from its third byte on.
    const PERIOD: usize = 13;
    const ZEROS_IN_PERIOD: u64 = 8 * 258;
    // The last block, with the fixed codes, and the code of the literal 0.
    let mut bits = vec![1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0];
    // The code of 258 bytes (symbol 285) and the one of a distance of 1.
    let copy = [1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0];
    bits.extend(copy.iter().cycle().take(copy.len() * 16));
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | bit);
    let stream: Vec<u8> = bits.chunks_exact(8).map(byte).collect();
    let (start, rest) = stream.split_at(2);
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    out.extend(start);
    for _ in 0..zeros.div_ceil(ZEROS_IN_PERIOD) {
        out.extend(&rest[..PERIOD]);
    }
    out
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_gzip() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn an_empty_body_is_one_block() {
        assert_eq!(gzip(b"").len(), 10 + 5 + 8);
        assert_eq!(gzip(&vec![7; 0x1_0000]).len(), 10 + 5 + 0xffff + 5 + 1 + 8);
    }

    #[test]
    fn a_bomb_is_small_outside_and_large_inside() {
        use std::io::Read as _;

        let bomb = gzip_of_zeros(1 << 24);
        assert!(bomb.len() < 1 << 17, "{}", bomb.len());
        let mut inside = flate2::read::GzDecoder::new(&bomb[..]).take(1 << 24);
        let mut piece = vec![1; 1 << 24];
        inside.read_exact(&mut piece).unwrap();
        assert!(piece.iter().all(|&byte| byte == 0));
    }
}
