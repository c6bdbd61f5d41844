using System.Runtime.InteropServices;
using Mono.Unix.Native;

namespace Ublkback.Linux.Kernel;

/// <summary>
/// Names a file by its inode (name_to_handle_at(2)): the name holds when the file is moved, and a later file with the
/// same inode number has another one.
/// </summary>
/// <param name="Type">The file system's kind of handle.</param>
/// <param name="Bytes">The handle, at most <see cref="MaxBytes"/>.</param>
public sealed unsafe partial record FileHandle(int Type, byte[] Bytes)
{
    /// <summary>The most bytes a handle has (MAX_HANDLE_SZ, fcntl.h).</summary>
    public const int MaxBytes = 128;

    private const int HeadBytes = 8; // struct file_handle: handle_bytes, handle_type
    private const int EmptyPath = 0x1000; // AT_EMPTY_PATH, fcntl.h

    /// <summary>The handle of an open file; null when its file system has none.</summary>
    public static FileHandle? Of(FileDescriptor file)
    {
        int* buffer = stackalloc int[(HeadBytes + MaxBytes) / sizeof(int)];
        buffer[0] = MaxBytes;
        int mount;
        return name_to_handle_at(file, "", buffer, &mount, EmptyPath) < 0
            ? null
            : new FileHandle(buffer[1], new Span<byte>(buffer + 2, buffer[0]).ToArray());
    }

    /// <summary>
    /// Whether the file is there; null when that cannot be known: the caller lacks the right, or the file system has no
    /// handles.
    /// </summary>
    /// <param name="folder">A folder of the same file system, open for reading.</param>
    public bool? IsThere(FileDescriptor folder)
    {
        int* buffer = stackalloc int[(HeadBytes + MaxBytes) / sizeof(int)];
        buffer[0] = Bytes.Length;
        buffer[1] = Type;
        Bytes.CopyTo(new Span<byte>(buffer + 2, MaxBytes));
        int file = open_by_handle_at(folder, buffer, FileDescriptor.PathOnly | FileDescriptor.CloseOnExec);
        if (file < 0) return Marshal.GetLastPInvokeError() == (int)Errno.ESTALE ? false : null;
        _ = Syscall.close(file);
        return true;
    }

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int name_to_handle_at(
        FileDescriptor directory, string path, int* handle, int* mount, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int open_by_handle_at(FileDescriptor mount, int* handle, int flags);
}
