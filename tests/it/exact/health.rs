//! What is said of a connection's health, beside what the end that suffers says of it.
