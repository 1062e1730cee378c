//! Every message survives the round trip, however its bytes are cut.
