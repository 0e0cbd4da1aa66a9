// SPDX-License-Identifier: Apache-2.0

/*
 * A file system that is far away: another directory, where each request takes
 * its time, and all of them are counted.
 *
 *     delayed -o root=DIRECTORY,delay=MICROSECONDS,timeout=SECONDS MOUNT_POINT
 *
 * As a client of NFS, the kernel believes what it knows of a name or an inode
 * for the timeout, and asks again then; data is read anew at each open.
 * Several requests are under way at a time. Locks are those of this machine.
 *
 * The value of the extended attribute user.requests of the mount point says
 * how many there were of each kind since it was read last, and is no request
 * itself; nor is to close a file or to ask for another attribute, which a
 * client of NFS does without the server.
 */

#define _GNU_SOURCE
#define FUSE_USE_VERSION 31

#include <fuse.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

enum kind { ATTRIBUTES, OPEN, READ, LIST, WRITE, CHANGE, KINDS };

static const char *const kinds[KINDS] = {
    "attributes", "open", "read", "list", "write", "change",
};

static unsigned long counts[KINDS];

static struct {
    char *root;
    unsigned int delay;
    double timeout;
} options;

static const struct fuse_opt specification[] = {
    {"root=%s", offsetof(__typeof__(options), root), 0},
    {"delay=%u", offsetof(__typeof__(options), delay), 0},
    {"timeout=%lf", offsetof(__typeof__(options), timeout), 0},
    FUSE_OPT_END,
};

static void request(enum kind kind)
{
    __atomic_add_fetch(&counts[kind], 1, __ATOMIC_RELAXED);
    struct timespec left = {
        options.delay / 1000000, options.delay % 1000000 * 1000L};
    while (options.delay && nanosleep(&left, &left) && errno == EINTR)
        ;
}

static int answer(ssize_t result)
{
    return result < 0 ? -errno : (int)result;
}

/* Declares a variable with the path that is behind one of ours. */
#define BEHIND(variable, path)                                               \
    char variable[PATH_MAX];                                                 \
    if (snprintf(variable, sizeof variable, "%s%s", options.root, path) >=   \
        (int)sizeof variable)                                                \
    return -ENAMETOOLONG

static void *begin(struct fuse_conn_info *connection,
                   struct fuse_config *config)
{
    (void)connection;
    config->use_ino = 1;
    config->attr_timeout = options.timeout;
    config->entry_timeout = options.timeout;
    config->negative_timeout = 0;
    return NULL;
}

static int get_attributes(const char *path, struct stat *found,
                          struct fuse_file_info *file)
{
    request(ATTRIBUTES);
    if (file)
        return answer(fstat((int)file->fh, found));
    BEHIND(behind, path);
    return answer(lstat(behind, found));
}

static int get_space(const char *path, struct statvfs *found)
{
    request(ATTRIBUTES);
    BEHIND(behind, path);
    return answer(statvfs(behind, found));
}

static int read_link(const char *path, char *target, size_t size)
{
    request(READ);
    BEHIND(behind, path);
    ssize_t length = readlink(behind, target, size - 1);
    if (length < 0)
        return -errno;
    target[length] = '\0';
    return 0;
}

static int open_file(const char *path, struct fuse_file_info *file)
{
    request(OPEN);
    BEHIND(behind, path);
    int fd = open(behind, file->flags & ~(O_CREAT | O_EXCL | O_DIRECT));
    if (fd < 0)
        return -errno;
    file->fh = (uint64_t)fd;
    return 0;
}

static int create_file(const char *path, mode_t mode,
                       struct fuse_file_info *file)
{
    request(OPEN);
    BEHIND(behind, path);
    int fd = open(behind, (file->flags & ~O_DIRECT) | O_CREAT, mode);
    if (fd < 0)
        return -errno;
    file->fh = (uint64_t)fd;
    return 0;
}

static int close_file(const char *path, struct fuse_file_info *file)
{
    (void)path;
    return answer(close((int)file->fh));
}

static int read_file(const char *path, char *data, size_t size, off_t offset,
                     struct fuse_file_info *file)
{
    (void)path;
    request(READ);
    return answer(pread((int)file->fh, data, size, offset));
}

static off_t seek_file(const char *path, off_t offset, int whence,
                       struct fuse_file_info *file)
{
    (void)path;
    request(ATTRIBUTES);
    off_t found = lseek((int)file->fh, offset, whence);
    return found < 0 ? -errno : found;
}

static int write_file(const char *path, const char *data, size_t size,
                      off_t offset, struct fuse_file_info *file)
{
    (void)path;
    request(WRITE);
    return answer(pwrite((int)file->fh, data, size, offset));
}

static int sync_file(const char *path, int only_data,
                     struct fuse_file_info *file)
{
    (void)path;
    (void)only_data;
    request(WRITE);
    return answer(fsync((int)file->fh));
}

static int open_directory(const char *path, struct fuse_file_info *file)
{
    BEHIND(behind, path);
    DIR *directory = opendir(behind);
    if (!directory)
        return -errno;
    file->fh = (uintptr_t)directory;
    return 0;
}

static int list_directory(const char *path, void *buffer, fuse_fill_dir_t fill,
                          off_t offset, struct fuse_file_info *file,
                          enum fuse_readdir_flags flags)
{
    (void)path;
    (void)offset;
    (void)flags;
    /* Opening it is none, as for NFS. */
    request(LIST);
    DIR *directory = (DIR *)(uintptr_t)file->fh;
    rewinddir(directory);
    for (struct dirent *each; (each = readdir(directory));) {
        struct stat known = {
            .st_ino = each->d_ino, .st_mode = (mode_t)each->d_type << 12};
        if (fill(buffer, each->d_name, &known, 0, 0))
            break;
    }
    return 0;
}

static int sync_directory(const char *path, int only_data,
                          struct fuse_file_info *file)
{
    (void)path;
    (void)only_data;
    request(WRITE);
    return answer(fsync(dirfd((DIR *)(uintptr_t)file->fh)));
}

static int close_directory(const char *path, struct fuse_file_info *file)
{
    (void)path;
    return answer(closedir((DIR *)(uintptr_t)file->fh));
}

static int make_directory(const char *path, mode_t mode)
{
    request(CHANGE);
    BEHIND(behind, path);
    return answer(mkdir(behind, mode));
}

static int remove_file(const char *path)
{
    request(CHANGE);
    BEHIND(behind, path);
    return answer(unlink(behind));
}

static int remove_directory(const char *path)
{
    request(CHANGE);
    BEHIND(behind, path);
    return answer(rmdir(behind));
}

static int make_link(const char *target, const char *path)
{
    request(CHANGE);
    BEHIND(behind, path);
    return answer(symlink(target, behind));
}

static int link_file(const char *source, const char *target)
{
    request(CHANGE);
    BEHIND(from, source);
    BEHIND(to, target);
    return answer(link(from, to));
}

static int rename_file(const char *source, const char *target,
                       unsigned int flags)
{
    request(CHANGE);
    BEHIND(from, source);
    BEHIND(to, target);
    /* A server of NFS knows no flags. */
    return flags ? -EINVAL : answer(rename(from, to));
}

static int change_mode(const char *path, mode_t mode,
                       struct fuse_file_info *file)
{
    (void)file;
    request(CHANGE);
    BEHIND(behind, path);
    return answer(chmod(behind, mode));
}

static int change_owner(const char *path, uid_t user, gid_t group,
                        struct fuse_file_info *file)
{
    (void)file;
    request(CHANGE);
    BEHIND(behind, path);
    return answer(lchown(behind, user, group));
}

static int change_size(const char *path, off_t size,
                       struct fuse_file_info *file)
{
    request(CHANGE);
    if (file)
        return answer(ftruncate((int)file->fh, size));
    BEHIND(behind, path);
    return answer(truncate(behind, size));
}

static int change_times(const char *path, const struct timespec times[2],
                        struct fuse_file_info *file)
{
    (void)file;
    request(CHANGE);
    BEHIND(behind, path);
    return answer(utimensat(AT_FDCWD, behind, times, AT_SYMLINK_NOFOLLOW));
}

static int get_attribute(const char *path, const char *name, char *value,
                         size_t size)
{
    if (strcmp(path, "/") || strcmp(name, "user.requests"))
        return -ENODATA;
    char text[KINDS * 40];
    size_t length = 0;
    if (!size)
        return sizeof text;
    /* Before anything is forgotten. */
    if (size < sizeof text)
        return -ERANGE;
    for (int kind = 0; kind < KINDS; kind++)
        length += (size_t)snprintf(
            text + length, sizeof text - length, "%s %lu\n", kinds[kind],
            __atomic_exchange_n(&counts[kind], 0, __ATOMIC_RELAXED));
    memcpy(value, text, length);
    return (int)length;
}

static const struct fuse_operations operations = {
    .init = begin,
    .getattr = get_attributes,
    .statfs = get_space,
    .readlink = read_link,
    .open = open_file,
    .create = create_file,
    .release = close_file,
    .read = read_file,
    .lseek = seek_file,
    .write = write_file,
    .fsync = sync_file,
    .opendir = open_directory,
    .readdir = list_directory,
    .fsyncdir = sync_directory,
    .releasedir = close_directory,
    .mkdir = make_directory,
    .unlink = remove_file,
    .rmdir = remove_directory,
    .symlink = make_link,
    .link = link_file,
    .rename = rename_file,
    .chmod = change_mode,
    .chown = change_owner,
    .truncate = change_size,
    .utimens = change_times,
    .getxattr = get_attribute,
};

int main(int count, char **values)
{
    struct fuse_args arguments = FUSE_ARGS_INIT(count, values);
    if (fuse_opt_parse(&arguments, &options, specification, NULL) ||
        !options.root) {
        fprintf(stderr, "delayed: -o root=DIRECTORY is missing\n");
        return 2;
    }
    /* As many at a time as a client of NFS has slots. */
    if (fuse_version() >= 312)
        fuse_opt_add_arg(&arguments, "-omax_threads=64");
    fuse_opt_add_arg(&arguments, "-omax_idle_threads=64");
    int result = fuse_main(arguments.argc, arguments.argv, &operations, NULL);
    fuse_opt_free_args(&arguments);
    return result;
}
