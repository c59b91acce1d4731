//! Changes of a database become the events of its stream.
