//! The observer over a source in memory.
