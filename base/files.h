// Files and folders: every size is checked, every failure has a text that names the path.
#ifndef VL_BASE_FILES_H
#define VL_BASE_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum { VL_PATH_MAX = 4096 };

// out (VL_PATH_MAX bytes) = folder/name, or name alone when it is absolute or folder is "" or NULL.
VlStatus vl_path_join(char *out, const char *folder, const char *name);
// out = the folder part of a path ("." when it has none).
VlStatus vl_path_folder(char *out, const char *path);
const char *vl_path_last(const char *path);  // its last part, inside `path`
bool vl_ends_with(const char *text, const char *end);
bool vl_path_exists(const char *path);
bool vl_path_is_folder(const char *path);
bool vl_folder_holds(const char *folder, const char *name);  // does folder/name exist?
VlStatus vl_file_size(const char *path, int64_t *size);
VlStatus vl_make_folders(const char *path);  // like mkdir -p
VlStatus vl_remove_tree(const char *path);   // a file or a folder with all it holds; missing is no error
// Names in a folder without "." and "..", sorted bytewise; free each and the array with vl_free_names.
VlStatus vl_list_folder(const char *path, char ***names, int64_t *count);
void vl_free_names(char **names, int64_t count);
VlStatus vl_sync_folder(const char *path);  // fsync of the folder itself, after a rename in it

// The whole file in *data (owner frees with vl_free; a zero byte follows the content). Larger than `limit`: VL_FORMAT.
VlStatus vl_read_file(const char *path, int64_t limit, char **data, int64_t *size);

// A file open for reading at offsets, by any number of threads.
typedef struct VlReader {
    int descriptor;
    int64_t size;
    char path[VL_PATH_MAX];
} VlReader;
VlStatus vl_reader_open(VlReader *reader, const char *path);
// Exactly `size` bytes at `offset`; past the end: VL_FORMAT (truncated).
VlStatus vl_reader_read(const VlReader *reader, int64_t offset, void *data, int64_t size);
void vl_reader_close(VlReader *reader);

// A file that appears complete or not at all: written as PATH.tmp-PID, fsynced and renamed by vl_writer_commit.
typedef struct VlWriter {
    int descriptor;
    int64_t offset;  // bytes written so far
    char path[VL_PATH_MAX], temporary[VL_PATH_MAX];
} VlWriter;
VlStatus vl_writer_open(VlWriter *writer, const char *path);
VlStatus vl_writer_write(VlWriter *writer, const void *data, int64_t size);
VlStatus vl_writer_commit(VlWriter *writer);  // closes; on failure the temporary file is removed
void vl_writer_abandon(VlWriter *writer);     // closes and removes; harmless after commit
VlStatus vl_write_file(const char *path, const void *data, int64_t size);  // open, write, commit
// The same without waiting for the disk: for many small files, which vl_sync_file_system then makes safe all at once.
VlStatus vl_write_file_unsynced(const char *path, const void *data, int64_t size);
// Waits until everything written to the file system of this folder is on the disk.
VlStatus vl_sync_file_system(const char *path);

#endif
