//! Any bytes are decoded or refused; what was decoded is as long as it says.
#![no_main]

use headgate_postgres::pgoutput::{Images, MAX_COLUMNS, decode, decode_head};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payload: &[u8]| {
    let mut images = Images::default();
    if decode(payload, &mut images).is_ok() {
        // A message is whole: nothing may be cut off or added.
        let cut = &payload[..payload.len() - 1];
        assert!(decode(cut, &mut Images::default()).is_err());
        let longer = [payload, &[0]].concat();
        assert!(decode(&longer, &mut Images::default()).is_err());
    }
    assert!(images.old.len().max(images.new.len()) <= usize::from(MAX_COLUMNS));
    let _ = decode_head(payload);
});
