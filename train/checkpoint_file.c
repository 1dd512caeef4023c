#include "train/checkpoint_file.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

// Elements that pass through host memory at a time.
enum { PIECE = 4 << 20 };

static const char *const kinds[] = {"parameters", "moment1", "moment2"};

static VlStatus failed(const char *action, const char *path, const char *name) {
    const char *reason = errno ? strerror(errno) : "HDF5 refused";
    return vl_error(VL_IO, "cannot %s %s%s%s: %s", action, path, *name ? ", tensor " : "", name, reason);
}

static VlTensor flat_range(const VlOptimizer *optimizer, int kind, int64_t offset, int64_t count) {
    const VlTensor flats[] = {optimizer->params->flat_master, optimizer->moment1, optimizer->moment2};
    return vl_rows(flats[kind], offset, count);
}

// Selects rows [begin, begin + count) of the first extent in `space`.
static bool select_rows(hid_t space, VlTensor shape, int64_t begin, int64_t count) {
    hsize_t start[VL_MAX_DIMS] = {0}, length[VL_MAX_DIMS];
    for (int32_t i = 0; i < shape.dims; i++) length[i] = (hsize_t)shape.dim[i];
    start[0] = (hsize_t)begin;
    length[0] = (hsize_t)count;
    return H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, length, NULL) >= 0;
}

static int64_t row_elements(VlTensor shape) {
    int64_t elements = 1;
    for (int32_t i = 1; i < shape.dims; i++) elements *= shape.dim[i];
    return elements;
}

static int64_t rows_per_piece(VlTensor shape) {
    int64_t row = row_elements(shape);
    return row >= PIECE ? 1 : PIECE / (row > 0 ? row : 1);
}

// Moves elements [offset, offset + count) of a tensor between device and `host`.
typedef VlStatus (*Move)(void *user, int64_t offset, int64_t count, float *host);

// Passes a dataset piece by piece through host memory: writing takes each piece from `move`, reading gives it to
// `move`.
static VlStatus transfer(hid_t set, VlTensor shape, bool writing, Move move, void *user, const char *path,
                         const char *name) {
    int64_t row = row_elements(shape), piece = rows_per_piece(shape);
    if (piece > shape.dim[0]) piece = shape.dim[0];
    float *host = NULL;
    VlStatus status = VL_OK;
    hid_t space = H5Dget_space(set);
    VL_TRY_GOTO(status, VL_NEW(&host, piece * row), done);
    for (int64_t begin = 0; begin < shape.dim[0]; begin += piece) {
        int64_t rows = shape.dim[0] - begin < piece ? shape.dim[0] - begin : piece;
        hsize_t elements = (hsize_t)(rows * row);
        hid_t memory = H5Screate_simple(1, &elements, NULL);
        if (writing) status = move(user, begin * row, rows * row, host);
        errno = 0;
        if (status == VL_OK && (memory < 0 || !select_rows(space, shape, begin, rows) ||
                                (writing ? H5Dwrite(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, host)
                                         : H5Dread(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, host)) < 0)) {
            status = failed(writing ? "write" : "read", path, name);
        }
        if (memory >= 0) H5Sclose(memory);
        if (status == VL_OK && !writing) status = move(user, begin * row, rows * row, host);
        if (status != VL_OK) goto done;
    }
done:
    if (space >= 0) H5Sclose(space);
    vl_free(host);
    return status;
}

typedef struct Place {
    const VlOptimizer *optimizer;
    VlContext *context;
    VlParam *param;
    int kind;
} Place;

static VlStatus take(void *user, int64_t offset, int64_t count, float *host) {
    const Place *place = user;
    VlTensor range = flat_range(place->optimizer, place->kind, place->param->offset + offset, count);
    return vl_copy_to_host(place->optimizer->context, host, range);
}

static VlStatus give_moment(void *user, int64_t offset, int64_t count, float *host) {
    const Place *place = user;
    VlTensor range = flat_range(place->optimizer, place->kind, place->param->offset + offset, count);
    return vl_copy_from_host(place->context, range, host);
}

static VlStatus give_parameter(void *user, int64_t offset, int64_t count, float *host) {
    const Place *place = user;
    return vl_params_set_part(place->context, place->param, offset, count, host, VL_F32);
}

static VlStatus write_tensor(hid_t group, Place *place, const char *path) {
    VlTensor shape = place->param->shape;
    hsize_t extents[VL_MAX_DIMS];
    for (int32_t i = 0; i < shape.dims; i++) extents[i] = (hsize_t)shape.dim[i];
    errno = 0;
    hid_t space = H5Screate_simple(shape.dims, extents, NULL);
    hid_t set = H5Dcreate2(group, place->param->name, H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    VlStatus status = set < 0 ? failed("create", path, place->param->name)
                              : transfer(set, shape, true, take, place, path, place->param->name);
    if (set >= 0 && H5Dclose(set) < 0 && status == VL_OK) status = failed("write", path, place->param->name);
    if (space >= 0) H5Sclose(space);
    return status;
}

static VlStatus sync_file(const char *path) {
    int descriptor = open(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) return failed("open", path, "");
    int result = fsync(descriptor);
    if (close(descriptor) != 0 || result != 0) return failed("fsync", path, "");
    return VL_OK;
}

// Before the first call of the library. Its clean-up at exit crashes after a failed write (a full disk), and is not
// needed: every file is closed here. Its messages are ours to word.
static void start_hdf5(void) {
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

VlStatus vl_checkpoint_file_write(const char *path, const VlOptimizer *optimizer, int64_t first, int64_t last) {
    start_hdf5();
    if (vl_fault_hit()) return vl_error(VL_IO, "cannot create %s: injected fault", path);
    errno = 0;
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    if (file < 0) return failed("create", path, "");
    VlStatus status = VL_OK;
    for (int kind = 0; kind < 3 && status == VL_OK; kind++) {
        hid_t group = H5Gcreate2(file, kinds[kind], H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        if (group < 0) {
            status = failed("create a group in", path, "");
            break;
        }
        for (int64_t i = first; i < last && status == VL_OK; i++) {
            Place place = {optimizer, optimizer->context, optimizer->params->rows[i], kind};
            if (place.param->trainable) status = write_tensor(group, &place, path);
        }
        if (H5Gclose(group) < 0 && status == VL_OK) status = failed("write", path, "");
    }
    if (H5Fclose(file) < 0 && status == VL_OK) status = failed("write", path, "");
    return status == VL_OK ? sync_file(path) : status;
}

static VlStatus read_shape(hid_t set, const char *path, const char *name, VlTensor *shape) {
    hid_t space = H5Dget_space(set);
    int dims = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    hsize_t extents[VL_MAX_DIMS] = {0};
    VlStatus status = VL_OK;
    if (dims < 1 || dims > VL_MAX_DIMS || H5Sget_simple_extent_dims(space, extents, NULL) < 0) {
        status = vl_error(VL_FORMAT, "%s: tensor %s has no valid extents", path, name);
    } else {
        int64_t dim[VL_MAX_DIMS], elements = 4;
        for (int i = 0; i < dims; i++) {
            dim[i] = (int64_t)extents[i];
            if (!vl_multiply(elements, dim[i], &elements)) {
                status = vl_error(VL_FORMAT, "%s: tensor %s is larger than 2^63 bytes", path, name);
                break;
            }
        }
        if (status == VL_OK) *shape = vl_tensor_make(NULL, VL_F32, dims, dim);
    }
    if (space >= 0) H5Sclose(space);
    return status;
}

typedef struct Walk {
    const char *path;
    VlContext *context;
    VlParams *params;
    VlOptimizer *optimizer;
    bool *found;
    VlTensorVisit visit;
    void *user;
    int kind;
    VlStatus status;
} Walk;

static VlStatus read_tensor(Walk *walk, hid_t set, const char *name, VlTensor shape) {
    VlParam *param = vl_params_find(walk->params, name);
    if (!param) {
        return vl_error(VL_FORMAT, "%s holds %s, which this model does not have: it was made for another configuration",
                        walk->path, name);
    }
    if (!vl_same_shape(param->shape, shape)) {
        return vl_error(VL_FORMAT, "%s: %s is %s in the checkpoint but %s in the model", walk->path, name,
                        vl_describe(shape), vl_describe(param->shape));
    }
    if (walk->kind > 0 && !param->trainable) return VL_OK;
    Place place = {walk->optimizer, walk->context, param, walk->kind};
    if (walk->kind == 0) walk->found[param->index] = true;
    return transfer(set, shape, false, walk->kind == 0 ? give_parameter : give_moment, &place, walk->path, name);
}

static herr_t visit_link(hid_t group, const char *name, const H5L_info_t *info, void *user) {
    (void)info;
    Walk *walk = user;
    VlTensor shape;
    hid_t set = H5Dopen2(group, name, H5P_DEFAULT);
    if (set < 0) {
        walk->status = vl_error(VL_FORMAT, "%s: %s/%s is no dataset", walk->path, kinds[walk->kind], name);
        return -1;
    }
    walk->status = read_shape(set, walk->path, name, &shape);
    if (walk->status == VL_OK) {
        walk->status = walk->visit ? walk->visit(walk->user, name, shape) : read_tensor(walk, set, name, shape);
    }
    H5Dclose(set);
    return walk->status == VL_OK ? 0 : -1;
}

static VlStatus walk_groups(Walk *walk, int groups) {
    start_hdf5();
    hid_t file = H5Fopen(walk->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file < 0) return vl_error(VL_FORMAT, "%s is missing or no HDF5 file", walk->path);
    for (walk->kind = 0; walk->kind < groups && walk->status == VL_OK; walk->kind++) {
        hid_t group = H5Gopen2(file, kinds[walk->kind], H5P_DEFAULT);
        if (group < 0) {
            walk->status = vl_error(VL_FORMAT, "%s has no group /%s", walk->path, kinds[walk->kind]);
            break;
        }
        if (H5Literate(group, H5_INDEX_NAME, H5_ITER_INC, NULL, visit_link, walk) < 0 && walk->status == VL_OK) {
            walk->status = vl_error(VL_FORMAT, "%s: group /%s cannot be read", walk->path, kinds[walk->kind]);
        }
        H5Gclose(group);
    }
    H5Fclose(file);
    return walk->status;
}

VlStatus vl_checkpoint_file_read(const char *path, VlContext *context, VlParams *params, VlOptimizer *optimizer,
                                 bool *found) {
    Walk walk = {.path = path, .context = context, .params = params, .optimizer = optimizer, .found = found};
    return walk_groups(&walk, optimizer ? 3 : 1);
}

VlStatus vl_checkpoint_file_list(const char *path, VlTensorVisit visit, void *user) {
    Walk walk = {.path = path, .visit = visit, .user = user};
    return walk_groups(&walk, 1);
}
