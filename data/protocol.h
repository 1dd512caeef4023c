// Which of the reference's rules apply: its code changed between the paper's first numbers and the later releases, so a
// result or a prompt without its protocol is not comparable.
#ifndef VL_DATA_PROTOCOL_H
#define VL_DATA_PROTOCOL_H

#include "base/status.h"

typedef enum VlProtocol {
    VL_PROTOCOL_MAIN,     // "vl2-main": v1.5 and later
    VL_PROTOCOL_AV,       // "vl2-av": as main but for the plain stage, and with sound
    VL_PROTOCOL_2024_06,  // "vl2-2024-06": the code behind the paper's first numbers
} VlProtocol;

// Errors: VL_USAGE naming the nearest protocol.
VlStatus vl_protocol_parse(VlProtocol *protocol, const char *name);
const char *vl_protocol_name(VlProtocol protocol);

#endif
