using System.Runtime.InteropServices;

namespace Ublkback.Rados.Bindings;

/// <summary>The functions of librbd that are used (rbd/librbd.h). It is loaded at the first call of one.</summary>
/// <remarks>Results below zero are negative error numbers.</remarks>
internal static unsafe partial class LibRbd
{
    private const string Library = "librbd.so.1";

    /// <summary>RBD_LOCK_MODE_EXCLUSIVE</summary>
    public const int Exclusive = 0;

    /// <summary>RBD_FEATURE_EXCLUSIVE_LOCK</summary>
    public const ulong ExclusiveLockFeature = 1 << 2;

    [LibraryImport(Library, EntryPoint = "rbd_open", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int Open(nint context, string name, out nint image, string? snapshot);

    [LibraryImport(Library, EntryPoint = "rbd_open_read_only", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int OpenReadOnly(nint context, string name, out nint image, string? snapshot);

    [LibraryImport(Library, EntryPoint = "rbd_close")]
    public static partial int Close(nint image);

    [LibraryImport(Library, EntryPoint = "rbd_get_size")]
    public static partial int GetSize(nint image, out ulong size);

    [LibraryImport(Library, EntryPoint = "rbd_get_features")]
    public static partial int GetFeatures(nint image, out ulong features);

    [LibraryImport(Library, EntryPoint = "rbd_lock_acquire")]
    public static partial int Lock(nint image, int mode);

    [LibraryImport(Library, EntryPoint = "rbd_aio_create_completion")]
    public static partial int CreateCompletion(
        nint argument, delegate* unmanaged[Cdecl]<nint, nint, void> complete, out nint completion);

    [LibraryImport(Library, EntryPoint = "rbd_aio_get_return_value")]
    public static partial nint GetResult(nint completion);

    [LibraryImport(Library, EntryPoint = "rbd_aio_release")]
    public static partial void ReleaseCompletion(nint completion);

    [LibraryImport(Library, EntryPoint = "rbd_aio_read")]
    public static partial int BeginRead(nint image, ulong offset, nuint length, byte* buffer, nint completion);

    [LibraryImport(Library, EntryPoint = "rbd_aio_write")]
    public static partial int BeginWrite(nint image, ulong offset, nuint length, byte* buffer, nint completion);

    [LibraryImport(Library, EntryPoint = "rbd_aio_discard")]
    public static partial int BeginDiscard(nint image, ulong offset, ulong length, nint completion);

    [LibraryImport(Library, EntryPoint = "rbd_aio_flush")]
    public static partial int BeginFlush(nint image, nint completion);
}
