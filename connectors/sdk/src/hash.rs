//! A hash that is the same in every run and on every machine, for names and partitions; not against anybody.

/// FNV-1a, 32 bits, over the parts as if they were one text: the function of the NATS server's own `partition()`.
/// <http://www.isthe.com/chongo/tech/comp/fnv/>
#[must_use]
pub fn fnv1a(parts: &[&[u8]]) -> u32 {
    let mut hash = 0x811c_9dc5u32;
    for byte in parts.iter().copied().flatten() {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::fnv1a;

    #[test]
    fn fnv_has_its_published_values() {
        // Test vectors of the FNV reference code: http://www.isthe.com/chongo/tech/comp/fnv/
        assert_eq!(fnv1a(&[b""]), 0x811c_9dc5);
        assert_eq!(fnv1a(&[b"a"]), 0xe40c_292c);
        assert_eq!(fnv1a(&[b"foo", b"bar"]), 0xbf9c_f968);
    }
}
