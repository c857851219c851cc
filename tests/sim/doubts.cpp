#include "doubts.h"

// It has a function with the name of a type, so it is included here alone.
extern "C" {
#include "dm-remap-internal.h"
}

namespace remap::sim {

// Of a doubt that was loaded nobody took the places: as long as it stands the spare takes nothing.
std::vector<dm_remap_record> doubted_places(const dm_remap_metadata& md) {
    std::vector<dm_remap_record> places;
    for (const dm_remap_doubt* d = md.doubt; d != nullptr; d = d->next) {
        for (unsigned i = 0; d->abandoned && i < d->n; i++) {
            if (d->entry[i].kind == DM_REMAP_MAPPED || d->entry[i].kind == DM_REMAP_RETIRED) {
                places.push_back(d->entry[i]);
            }
        }
    }
    return places;
}

}  // namespace remap::sim
