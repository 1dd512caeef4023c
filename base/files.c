#include "base/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

// True if a test asked for this call to fail; it then looks like a device error.
static bool fault(void) {
    if (!vl_fault_hit()) return false;
    errno = EIO;
    return true;
}

static VlStatus refused(const char *verb, const char *path) {
    return vl_error(errno == ENOMEM ? VL_OUT_OF_MEMORY : VL_IO, "cannot %s '%s': %s", verb, path, strerror(errno));
}

// ---- Paths -----------------------------------------------------------------

static VlStatus copy_path(char *out, const char *path, size_t length) {
    if (length >= VL_PATH_MAX) {
        return vl_error(VL_INVALID, "the path '%.60s...' has %zu bytes; at most %d are allowed", path, length,
                        VL_PATH_MAX - 1);
    }
    memmove(out, path, length);
    out[length] = '\0';
    return VL_OK;
}

VlStatus vl_path_join(char *out, const char *folder, const char *name) {
    if (!folder || !folder[0] || name[0] == '/') return copy_path(out, name, strlen(name));
    size_t length = strlen(folder);
    const char *separator = folder[length - 1] == '/' ? "" : "/";
    if (snprintf(out, VL_PATH_MAX, "%s%s%s", folder, separator, name) >= VL_PATH_MAX) {
        return vl_error(VL_INVALID, "the path '%.60s...' joined with '%.60s...' is longer than %d bytes", folder, name,
                        VL_PATH_MAX - 1);
    }
    return VL_OK;
}

VlStatus vl_path_folder(char *out, const char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;  // "a/b/" names b
    while (length > 0 && path[length - 1] != '/') length--;
    while (length > 1 && path[length - 1] == '/') length--;
    return length ? copy_path(out, path, length) : copy_path(out, ".", 1);
}

const char *vl_path_last(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool vl_ends_with(const char *text, const char *end) {
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

bool vl_path_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

bool vl_path_is_folder(const char *path) {
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool vl_folder_holds(const char *folder, const char *name) {
    char path[VL_PATH_MAX];
    return vl_path_join(path, folder, name) == VL_OK && vl_path_exists(path);
}

VlStatus vl_file_size(const char *path, int64_t *size) {
    struct stat info;
    if (fault() || stat(path, &info)) return refused("look at", path);
    if (!S_ISREG(info.st_mode)) return vl_error(VL_IO, "'%s' is no regular file", path);
    *size = info.st_size;
    return VL_OK;
}

// ---- Folders ---------------------------------------------------------------

VlStatus vl_make_folders(const char *path) {
    char part[VL_PATH_MAX];
    if (!path[0]) return vl_error(VL_INVALID, "cannot create a folder with an empty name");
    VL_TRY(copy_path(part, path, strlen(path)));
    for (char *end = part + 1;; end++) {
        char kept = *end;
        if (kept && kept != '/') continue;
        *end = '\0';
        if (fault() || (mkdir(part, 0777) && errno != EEXIST)) return refused("create the folder", part);
        if (!vl_path_is_folder(part)) {
            return vl_error(VL_IO, "cannot create the folder '%s': '%s' exists and is no folder", path, part);
        }
        *end = kept;
        if (!kept) return VL_OK;
    }
}

static int remove_one(const char *path, const struct stat *info, int kind, struct FTW *place) {
    (void)info, (void)place;
    if (!fault() && (kind == FTW_DP ? rmdir(path) : unlink(path)) == 0) return 0;
    refused("remove", path);
    return 1;
}

VlStatus vl_remove_tree(const char *path) {
    struct stat info;
    if (lstat(path, &info)) return errno == ENOENT ? VL_OK : refused("remove", path);
    int result = nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (result < 0) return refused("remove", path);
    return result ? VL_IO : VL_OK;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

VlStatus vl_list_folder(const char *path, char ***names, int64_t *count) {
    VlStatus status = VL_OK;
    char **list = NULL;
    int64_t used = 0, capacity = 0;
    DIR *folder = fault() ? NULL : opendir(path);
    if (!folder) return refused("list the folder", path);
    for (;;) {
        errno = 0;
        struct dirent *entry = fault() ? NULL : readdir(folder);
        if (!entry) {
            if (errno) VL_TRY_GOTO(status, refused("list the folder", path), done);
            break;
        }
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        VL_TRY_GOTO(status, vl_reserve(&list, &capacity, used + 1, (int64_t)sizeof *list), done);
        VL_TRY_GOTO(status, vl_duplicate_string(&list[used], entry->d_name), done);
        used++;
    }
    if (used) qsort(list, (size_t)used, sizeof *list, compare_names);
    *names = list;
    *count = used;
done:
    if (status) vl_free_names(list, used);
    closedir(folder);
    return status;
}

void vl_free_names(char **names, int64_t count) {
    for (int64_t i = 0; i < count; i++) vl_free(names[i]);
    vl_free(names);
}

VlStatus vl_sync_folder(const char *path) {
    int descriptor = fault() ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return refused("open the folder", path);
    int result = fault() ? -1 : fsync(descriptor), problem = errno;
    close(descriptor);
    // Some file systems have no fsync for folders; there is then nothing to wait for.
    if (result && problem != EINVAL && problem != ENOTSUP) {
        errno = problem;
        return refused("sync the folder", path);
    }
    return VL_OK;
}

VlStatus vl_sync_file_system(const char *path) {
    int descriptor = fault() ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return refused("open the folder", path);
    int result = fault() ? -1 : syncfs(descriptor), problem = errno;
    close(descriptor);
    errno = problem;
    return result ? refused("sync the file system of", path) : VL_OK;
}

// ---- Reading ---------------------------------------------------------------

VlStatus vl_reader_open(VlReader *reader, const char *path) {
    struct stat info;
    *reader = (VlReader){.descriptor = -1};
    VL_TRY(copy_path(reader->path, path, strlen(path)));
    do {  // O_NONBLOCK: a pipe without a writer is refused below instead of waited for
        reader->descriptor = fault() ? -1 : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    } while (reader->descriptor < 0 && errno == EINTR);
    if (reader->descriptor < 0) return refused("open", path);
    if (fstat(reader->descriptor, &info)) {
        VlStatus status = refused("look at", path);
        vl_reader_close(reader);
        return status;
    }
    if (!S_ISREG(info.st_mode)) {
        vl_reader_close(reader);
        return vl_error(VL_IO, "cannot read '%s': it is %s, not a regular file", path,
                        S_ISDIR(info.st_mode) ? "a folder" : "a device or a pipe");
    }
    reader->size = info.st_size;
    return VL_OK;
}

// One read that is not cut short by a signal: bytes read, 0 at the end of the file, or -1 with errno.
static ssize_t read_some(int descriptor, void *data, int64_t size, int64_t offset) {
    ssize_t got;
    do {
        got = fault() ? -1 : pread(descriptor, data, (size_t)size, offset);
    } while (got < 0 && errno == EINTR);
    return got;
}

VlStatus vl_reader_read(const VlReader *reader, int64_t offset, void *data, int64_t size) {
    int64_t end;
    if (!vl_add(offset, size, &end)) {
        return vl_error(VL_INVALID, "'%s': %lld bytes at offset %lld are no valid range", reader->path, (long long)size,
                        (long long)offset);
    }
    for (char *to = data; offset < end;) {
        ssize_t got = read_some(reader->descriptor, to, end - offset, offset);
        if (got < 0) return refused("read", reader->path);
        if (got == 0) {
            return vl_error(VL_FORMAT, "'%s' is truncated: it ends at byte %lld, but bytes up to %lld are needed",
                            reader->path, (long long)offset, (long long)end);
        }
        offset += got;
        to += got;
    }
    return VL_OK;
}

void vl_reader_close(VlReader *reader) {
    if (reader->path[0] && reader->descriptor >= 0) close(reader->descriptor);
    reader->descriptor = -1;
}

VlStatus vl_read_file(const char *path, int64_t limit, char **data, int64_t *size) {
    VlStatus status = VL_OK;
    VlReader reader;
    char *content = NULL;
    int64_t used = 0, capacity = 0;
    VL_TRY(vl_reader_open(&reader, path));
    // To the end, not to the size: files of /proc say 0, and a file may grow.
    for (int64_t wanted = reader.size;; wanted = used + 1) {
        if (used > limit || wanted - 1 > limit) {
            VL_TRY_GOTO(
                status,
                vl_error(VL_FORMAT, "'%s' is larger than the %lld bytes allowed for it", path, (long long)limit), done);
        }
        VL_TRY_GOTO(status, vl_reserve(&content, &capacity, wanted + 1, 1), done);
        ssize_t got = read_some(reader.descriptor, content + used, capacity - 1 - used, used);
        if (got < 0) VL_TRY_GOTO(status, refused("read", path), done);
        if (got == 0) break;
        used += got;
    }
    content[used] = '\0';
    *data = content;
    *size = used;
done:
    if (status) vl_free(content);
    vl_reader_close(&reader);
    return status;
}

// ---- Writing ---------------------------------------------------------------

VlStatus vl_writer_open(VlWriter *writer, const char *path) {
    struct stat info;
    *writer = (VlWriter){.descriptor = -1};
    VL_TRY(copy_path(writer->path, path, strlen(path)));
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        return vl_error(VL_IO, "cannot write '%s': it exists and is no regular file", path);
    }
    char temporary[VL_PATH_MAX];
    if (snprintf(temporary, sizeof temporary, "%s.tmp-%ld", path, (long)getpid()) >= VL_PATH_MAX) {
        return vl_error(VL_INVALID, "the path '%.60s...' is too long", path);
    }
    do {
        writer->descriptor = fault() ? -1 : open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    } while (writer->descriptor < 0 && errno == EINTR);
    if (writer->descriptor < 0) return refused("create", temporary);
    memcpy(writer->temporary, temporary, sizeof temporary);
    return VL_OK;
}

VlStatus vl_writer_write(VlWriter *writer, const void *data, int64_t size) {
    const char *from = data;
    if (size < 0) return vl_error(VL_INVALID, "'%s': cannot write %lld bytes", writer->path, (long long)size);
    while (size > 0) {
        ssize_t put = fault() ? -1 : write(writer->descriptor, from, (size_t)size);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return refused("write", writer->path);
        from += put;
        size -= put;
        writer->offset += put;
    }
    return VL_OK;
}

static VlStatus sync_file(const VlWriter *writer) {
    int result;
    do {
        result = fault() ? -1 : fsync(writer->descriptor);
    } while (result && errno == EINTR);
    return result ? refused("write", writer->path) : VL_OK;
}

// After EINTR the descriptor is closed.
static VlStatus close_file(VlWriter *writer) {
    int result = close(writer->descriptor);
    writer->descriptor = -1;
    return result && errno != EINTR ? refused("close", writer->path) : VL_OK;
}

static VlStatus commit(VlWriter *writer, bool synced) {
    VlStatus status;
    char folder[VL_PATH_MAX];
    VL_TRY_GOTO(status, vl_path_folder(folder, writer->path), failed);
    if (synced) VL_TRY_GOTO(status, sync_file(writer), failed);
    VL_TRY_GOTO(status, close_file(writer), failed);
    if (fault() || rename(writer->temporary, writer->path)) {
        VL_TRY_GOTO(status, refused("rename the finished file to", writer->path), failed);
    }
    writer->temporary[0] = '\0';
    if (synced) VL_TRY(vl_sync_folder(folder));
    return VL_OK;
failed:
    vl_writer_abandon(writer);
    return status;
}

VlStatus vl_writer_commit(VlWriter *writer) { return commit(writer, true); }

void vl_writer_abandon(VlWriter *writer) {
    if (!writer->temporary[0]) return;
    if (writer->descriptor >= 0) close(writer->descriptor);
    unlink(writer->temporary);
    writer->descriptor = -1;
    writer->temporary[0] = '\0';
}

static VlStatus write_file(const char *path, const void *data, int64_t size, bool synced) {
    VlWriter writer;
    VL_TRY(vl_writer_open(&writer, path));
    VlStatus status = vl_writer_write(&writer, data, size);
    if (!status) return commit(&writer, synced);
    vl_writer_abandon(&writer);
    return status;
}

VlStatus vl_write_file(const char *path, const void *data, int64_t size) { return write_file(path, data, size, true); }

VlStatus vl_write_file_unsynced(const char *path, const void *data, int64_t size) {
    return write_file(path, data, size, false);
}
