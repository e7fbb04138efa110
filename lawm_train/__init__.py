"""lawm_train learns from what lawm_data makes: LAWM, C-LAP and the methods they are compared with."""
