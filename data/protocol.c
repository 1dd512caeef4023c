#include "data/protocol.h"

#include <string.h>

static const char *const names[] = {
    [VL_PROTOCOL_MAIN] = "vl2-main", [VL_PROTOCOL_AV] = "vl2-av", [VL_PROTOCOL_2024_06] = "vl2-2024-06"};
enum { COUNT = sizeof names / sizeof *names };

VlStatus vl_protocol_parse(VlProtocol *protocol, const char *name) {
    for (int i = 0; i < COUNT; i++) {
        if (!strcmp(name, names[i])) {
            *protocol = (VlProtocol)i;
            return VL_OK;
        }
    }
    const char *nearest = vl_nearest_word(name, names, COUNT);
    return vl_error(VL_USAGE, "unknown protocol '%.80s'; %s%s", name,
                    nearest ? "did you mean " : "known are vl2-main, vl2-av, ", nearest ? nearest : "vl2-2024-06");
}

const char *vl_protocol_name(VlProtocol protocol) { return names[protocol]; }
