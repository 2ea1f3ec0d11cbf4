// Where a mask can have pixels: a window of the prototypes and a window of the frame for each detection.
//
// The frame's window begins at a multiple of 32 columns, so that one word of bits holds the same columns in every mask.
// Bit b of word w of row r of a mask is pixel (x, y) = (32 (word + w) + b, row + r) of the frame, and lies at
// arena[offset + r * words + w]. Bits beyond the frame's right edge are 0.
#pragma once

// As eight int32 in memory, (n, 8), in this order.
struct MaskWindow {
    int left, right, top, bottom;  // prototype pixels [left, right) x [top, bottom)
    int word, words;               // words of a frame row: [word, word + words)
    int row, rows;                 // frame rows: [row, row + rows); both counts are 0 where there is no pixel
};

constexpr int WORD_BITS = 32;
