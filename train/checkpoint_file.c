#include "train/checkpoint_file.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/sparse.h"

// Elements that pass through host memory at a time: a whole number of hash pieces. Datasets of at least a block begin
// at a block of the file, so that blocks of zeros in them are blocks of the file.
enum { PIECE = 4 << 20, BLOCK = 4096 };

static VlStatus failed(const char *action, const char *path, const char *name) {
    const char *reason = errno ? strerror(errno) : "HDF5 refused";
    return vl_error(VL_IO, "cannot %s %s%s%s: %s", action, path, *name ? ", tensor " : "", name, reason);
}

// ---- The file and its datasets ------------------------------------------------

// Before the first call of the library. Its clean-up at exit crashes after a failed write (a full disk), and is not
// needed: every file is closed here. Its messages are ours to word.
static void start_hdf5(void) {
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

// IEEE binary16, which HDF5 1.10 has no name for. The caller closes it.
static hid_t make_half(void) {
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    if (type < 0) return type;
    bool made = H5Tset_fields(type, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(type, 2) >= 0 && H5Tset_ebias(type, 15) >= 0;
    if (made) return type;
    H5Tclose(type);
    return -1;
}

// The file's type for a dtype. The caller closes it.
static hid_t make_type(VlDtype dtype) {
    switch (dtype) {
    case VL_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case VL_F64: return H5Tcopy(H5T_IEEE_F64LE);
    case VL_F16: return make_half();
    case VL_BF16: return H5Tcopy(H5T_STD_U16LE);
    case VL_I64: return H5Tcopy(H5T_STD_I64LE);
    case VL_I32: return H5Tcopy(H5T_STD_I32LE);
    case VL_I16: return H5Tcopy(H5T_STD_I16LE);
    case VL_I8: return H5Tcopy(H5T_STD_I8LE);
    default: return H5Tcopy(H5T_STD_U8LE);
    }
}

static bool write_attribute(hid_t set, const char *text) {
    hid_t space = H5Screate(H5S_SCALAR), type = H5Tcopy(H5T_C_S1), attribute = -1;
    bool written = space >= 0 && type >= 0 && H5Tset_size(type, strlen(text)) >= 0;
    if (written) attribute = H5Acreate2(set, "dtype", type, space, H5P_DEFAULT, H5P_DEFAULT);
    written = attribute >= 0 && H5Awrite(attribute, type, text) >= 0;
    if (attribute >= 0 && H5Aclose(attribute) < 0) written = false;
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    return written;
}

// The dataset of a tensor; its offset into *offset.
static bool create_dataset(hid_t group, hid_t layout, const char *name, VlStoredTensor *tensor) {
    VlTensor shape = tensor->shape;
    hsize_t extents[VL_MAX_DIMS];
    for (int32_t i = 0; i < shape.dims; i++) extents[i] = (hsize_t)shape.dim[i];
    hid_t space = tensor->scalar ? H5Screate(H5S_SCALAR) : H5Screate_simple(shape.dims, extents, NULL);
    hid_t type = make_type(shape.dtype), set = -1;
    if (space >= 0 && type >= 0) set = H5Dcreate2(group, name, type, space, H5P_DEFAULT, layout, H5P_DEFAULT);
    bool made = set >= 0;
    if (made && (shape.dtype == VL_BF16 || shape.dtype == VL_BOOL))
        made = write_attribute(set, vl_dtype_name(shape.dtype));
    haddr_t offset = made && vl_bytes(shape) > 0 ? H5Dget_offset(set) : 0;
    made = made && offset != HADDR_UNDEF;
    tensor->offset = (int64_t)offset;
    if (set >= 0 && H5Dclose(set) < 0) made = false;
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    return made;
}

// All datasets of the table; the tensors of a group follow one another.
static VlStatus create_datasets(hid_t file, hid_t layout, const char *path, VlTensorTable *table) {
    VlStatus status = VL_OK;
    hid_t group = -1;
    size_t length = 0;
    const char *last = NULL;
    for (int64_t i = 0; i < table->count && status == VL_OK; i++) {
        const char *name = table->tensors[i].name, *slash = strchr(name, '/');
        errno = 0;
        if (!last || (size_t)(slash - name) != length || strncmp(last, name, length) != 0) {
            char group_name[64];
            length = (size_t)(slash - name);
            snprintf(group_name, sizeof group_name, "%.*s", (int)length, name);
            if (group >= 0 && H5Gclose(group) < 0) status = failed("write", path, "");
            group = H5Gcreate2(file, group_name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
            if (group < 0 && status == VL_OK) status = failed("create a group in", path, "");
            last = name;
        }
        if (status == VL_OK && !create_dataset(group, layout, slash + 1, &table->tensors[i]))
            status = failed("create", path, name);
    }
    if (group >= 0 && H5Gclose(group) < 0 && status == VL_OK) status = failed("write", path, "");
    return status;
}

static VlStatus create_file(const char *path, VlTensorTable *table) {
    start_hdf5();
    if (vl_fault_hit()) return vl_error(VL_IO, "cannot create %s: injected fault", path);
    VlStatus status = VL_OK;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), layout = H5Pcreate(H5P_DATASET_CREATE), file = -1;
    errno = 0;
    if (access >= 0 && layout >= 0 && H5Pset_alignment(access, BLOCK, BLOCK) >= 0 &&
        H5Pset_layout(layout, H5D_CONTIGUOUS) >= 0 && H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY) >= 0 &&
        H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER) >= 0) {
        file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    }
    status = file < 0 ? failed("create", path, "") : create_datasets(file, layout, path, table);
    if (file >= 0 && H5Fclose(file) < 0 && status == VL_OK) status = failed("write", path, "");
    if (layout >= 0) H5Pclose(layout);
    if (access >= 0) H5Pclose(access);
    return status;
}

VlStatus vl_checkpoint_file_create(const char *path, VlTensorTable *table) {
    VlReader reader;
    snprintf(table->file, sizeof table->file, "%s", vl_path_last(path));
    VL_TRY(create_file(path, table));
    VL_TRY(vl_reader_open(&reader, path));
    table->size = reader.size;
    VlStatus status = vl_tensor_table_hash_rest(table, &reader, table->hash);
    vl_reader_close(&reader);
    return status;
}

// ---- A run's tensors --------------------------------------------------------

enum { PARAMETER, MOMENT1, MOMENT2, KINDS };
static const char *const kinds[KINDS] = {"parameters", "moment1", "moment2"};

// Elements [begin, begin + count) of a row's moments.
static VlTensor moment(const VlOptimizer *optimizer, int kind, const VlParam *row, int64_t begin, int64_t count) {
    return vl_rows(kind == MOMENT1 ? optimizer->moment1 : optimizer->moment2, row->offset + begin, count);
}

static VlStatus list_tensors(VlTensorTable *table, const VlParams *params, int64_t first, int64_t last) {
    for (int kind = 0; kind < KINDS; kind++) {
        for (int64_t i = first; i < last; i++) {
            const VlParam *row = params->rows[i];
            if (row->trainable) VL_TRY(vl_tensor_table_add(table, kinds[kind], row->name, row->shape, false));
        }
    }
    return VL_OK;
}

typedef struct Buffers {
    float *host;     // PIECE elements
    VlHash *pieces;  // of the largest tensor
} Buffers;

static VlStatus write_tensor(int descriptor, const char *path, const VlOptimizer *optimizer, int kind,
                             const VlParam *row, VlStoredTensor *tensor, const Buffers *buffers) {
    int64_t count = vl_elements(row->shape), size = vl_dtype_size(VL_F32);
    for (int64_t begin = 0; begin < count; begin += PIECE) {
        int64_t length = count - begin < PIECE ? count - begin : PIECE;
        if (kind == PARAMETER) {
            VL_TRY(vl_params_get_part(optimizer->context, row, begin, length, buffers->host));
        } else {
            VL_TRY(vl_copy_to_host(optimizer->context, buffers->host, moment(optimizer, kind, row, begin, length)));
        }
        vl_hash_pieces_of(buffers->host, length * size, buffers->pieces + begin * size / VL_HASH_PIECE);
        VL_TRY(vl_write_sparse(descriptor, path, tensor->offset + begin * size, buffers->host, length * size));
    }
    vl_hash_tensor(buffers->pieces, vl_hash_pieces(count * size), tensor->hash);
    return VL_OK;
}

static VlStatus write_tensors(int descriptor, const char *path, VlTensorTable *table, const VlOptimizer *optimizer,
                              int64_t first, int64_t last) {
    const VlParams *params = optimizer->params;
    Buffers buffers = {0};
    int64_t largest = 0, next = 0;
    for (int64_t i = 0; i < table->count; i++) {
        int64_t elements = vl_elements(table->tensors[i].shape);
        if (elements > largest) largest = elements;
    }
    VlStatus status = VL_NEW(&buffers.host, largest < PIECE ? largest : PIECE);
    if (status == VL_OK) status = VL_NEW(&buffers.pieces, vl_hash_pieces(largest * vl_dtype_size(VL_F32)));
    for (int kind = 0; kind < KINDS; kind++) {
        for (int64_t i = first; i < last && status == VL_OK; i++) {
            const VlParam *row = params->rows[i];
            if (row->trainable)
                status = write_tensor(descriptor, path, optimizer, kind, row, &table->tensors[next++], &buffers);
        }
    }
    vl_free(buffers.host);
    vl_free(buffers.pieces);
    return status;
}

static VlStatus save_file(const char *path, VlTensorTable *table, const VlOptimizer *optimizer, int64_t first,
                          int64_t last) {
    VL_TRY(list_tensors(table, optimizer->params, first, last));
    VL_TRY(vl_checkpoint_file_create(path, table));
    int descriptor = open(path, O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) return failed("open", path, "");
    VlStatus status = write_tensors(descriptor, path, table, optimizer, first, last);
    if (status == VL_OK && fsync(descriptor) != 0) status = failed("fsync", path, "");
    if (close(descriptor) != 0 && status == VL_OK) status = failed("close", path, "");
    return status;
}

VlStatus vl_checkpoint_file_save(const char *folder, const char *name, const VlOptimizer *optimizer, int64_t first,
                                 int64_t last) {
    char path[VL_PATH_MAX], file[VL_TABLE_FILE];
    VlTensorTable table = {0};
    snprintf(file, sizeof file, "%s.h5", name);
    VL_TRY(vl_path_join(path, folder, file));
    VlStatus status = save_file(path, &table, optimizer, first, last);
    snprintf(file, sizeof file, "%s.json", name);
    if (status == VL_OK) status = vl_path_join(path, folder, file);
    if (status == VL_OK) status = vl_tensor_table_save(&table, path);
    vl_tensor_table_free(&table);
    return status;
}

// ---- Reading ------------------------------------------------------------------

// The parameter of a tensor called `name`, of that shape.
static VlStatus find_param(VlParams *params, const VlStoredTensor *tensor, const char *name, const char *path,
                           VlParam **param) {
    *param = vl_params_find(params, name);
    if (!*param) {
        return vl_error(VL_FORMAT, "%s holds %s, which this model does not have: it was made for another configuration",
                        path, name);
    }
    if (!vl_same_shape((*param)->shape, tensor->shape) || tensor->shape.dtype != VL_F32) {
        return vl_error(VL_FORMAT, "%s: %s is %s in the checkpoint but %s in the model", path, name,
                        vl_describe(tensor->shape), vl_describe((*param)->shape));
    }
    return VL_OK;
}

static VlStatus read_tensor(const VlReader *reader, const VlStoredTensor *tensor, int kind, VlContext *context,
                            VlParam *param, VlOptimizer *optimizer, float *host) {
    int64_t count = vl_elements(tensor->shape), size = vl_dtype_size(VL_F32);
    for (int64_t begin = 0; begin < count; begin += PIECE) {
        int64_t length = count - begin < PIECE ? count - begin : PIECE;
        VL_TRY(vl_reader_read(reader, tensor->offset + begin * size, host, length * size));
        if (kind == PARAMETER) {
            VL_TRY(vl_params_set_part(context, param, begin, length, host, VL_F32));
        } else {
            VL_TRY(vl_copy_from_host(context, moment(optimizer, kind, param, begin, length), host));
        }
    }
    return VL_OK;
}

static int kind_of(const char *name, const char **rest) {
    for (int kind = 0; kind < KINDS; kind++) {
        size_t length = strlen(kinds[kind]);
        *rest = name + length + 1;
        if (strncmp(name, kinds[kind], length) == 0 && name[length] == '/') return kind;
    }
    return -1;
}

VlStatus vl_checkpoint_file_read(const char *folder, const VlTensorTable *table, VlContext *context, VlParams *params,
                                 VlOptimizer *optimizer, bool *found) {
    char path[VL_PATH_MAX];
    VlReader reader;
    float *host = NULL;
    VL_TRY(vl_path_join(path, folder, table->file));
    VL_TRY(vl_reader_open(&reader, path));
    VlStatus status = VL_NEW(&host, PIECE);
    for (int64_t i = 0; i < table->count && status == VL_OK; i++) {
        const VlStoredTensor *tensor = &table->tensors[i];
        const char *name;
        VlParam *param;
        int kind = kind_of(tensor->name, &name);
        if (kind < 0) status = vl_error(VL_FORMAT, "%s: %s is in no known group", path, tensor->name);
        if (kind > PARAMETER && !optimizer) continue;
        if (status == VL_OK) status = find_param(params, tensor, name, path, &param);
        if (status != VL_OK || (kind > PARAMETER && !param->trainable)) continue;
        if (kind == PARAMETER) found[param->index] = true;
        status = read_tensor(&reader, tensor, kind, context, param, optimizer, host);
    }
    vl_free(host);
    vl_reader_close(&reader);
    return status;
}
