//! Whatever fails, and whenever: the stream tells everything once, in order.
