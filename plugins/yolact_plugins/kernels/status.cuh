// Bits of the status word of a frame. `preprocess`, its first kernel, zeroes the word, and the host reads it after the
// last one; the others only add bits. A frame whose status is not 0 has no valid result.
#pragma once

enum Status : unsigned {
    STATUS_NOT_FINITE = 1u,            // a network output holds NaN or infinity, or a mask follows from one
    STATUS_CANDIDATE_OVERFLOW = 2u,    // more candidates than their buffers hold; the surplus was left out
    STATUS_LIMIT = 4u,                 // a setting is beyond what a kernel is built for; it wrote nothing
    STATUS_ARENA_OVERFLOW = 8u,        // the masks need more words than the arena has; masks that do not fit are empty
    STATUS_RUN_OVERFLOW = 16u,         // the masks need more runs than the buffer has; the surplus was left out
    STATUS_MASK_IOU_NOT_FINITE = 32u,  // the mask-IoU network predicts NaN or infinity
};
