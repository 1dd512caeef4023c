// What the parts of the pickle machine share: the opcodes (pickle.c) and the names they may ask for (pickle_names.c).
#ifndef VL_BASE_PICKLE_INTERNAL_H
#define VL_BASE_PICKLE_INTERNAL_H

#include "base/pickle.h"

// A fresh value of the machine's; freed with it.
VlStatus vl_pickle_make(VlPickle *pickle, VlPickleKind kind, VlPickleValue **value);

// GLOBAL: looks `module`.`name` up. VL_UNSUPPORTED unless it is in the list.
VlStatus vl_pickle_name(VlPickle *pickle, const VlPickleValue *module, const VlPickleValue *name,
                        VlPickleValue **value);
// REDUCE: what the name `callable` makes of `arguments`.
VlStatus vl_pickle_reduce(VlPickle *pickle, const VlPickleValue *callable, VlPickleValue *arguments,
                          VlPickleValue **value);
// BINPERSID: the storage that torch.save describes by a tuple.
VlStatus vl_pickle_storage(VlPickle *pickle, const VlPickleValue *description, VlPickleValue **value);

#endif
