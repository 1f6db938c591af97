//! Tests of the registry through its front door.
