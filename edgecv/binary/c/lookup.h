/* Tables of 256 bytes; x, y: (pixels, channels). */
#ifndef EDGECV_LOOKUP_H
#define EDGECV_LOOKUP_H

#include <stddef.h>
#include <stdint.h>

void lookup_whole(const uint8_t *x, size_t count, const uint8_t *table, uint8_t *y);
void lookup_channels(const uint8_t *x, size_t pixels, size_t channels, const uint8_t *tables,
                     uint8_t *y);
#endif
