using System.Runtime.InteropServices;

namespace Ublkback.Rados.Bindings;

/// <summary>
/// The functions of librados that are used (rados/librados.h). It is loaded at the first call of one.
/// </summary>
/// <remarks>Results below zero are negative error numbers.</remarks>
internal static unsafe partial class LibRados
{
    private const string Library = "librados.so.2";

    /// <summary>LIBRADOS_CREATE_EXCLUSIVE</summary>
    public const int CreateExclusive = 1;

    /// <summary>LIBRADOS_LOCK_FLAG_MAY_RENEW</summary>
    public const byte MayRenew = 1;

    /// <summary>LIBRADOS_LOCK_FLAG_MUST_RENEW</summary>
    public const byte MustRenew = 2;

    /// <summary>LIBRADOS_OPERATION_FULL_FORCE: also where the pool is full.</summary>
    public const int FullForce = 128;

    [LibraryImport(Library, EntryPoint = "rados_create", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int Create(out nint cluster, string? id);

    [LibraryImport(Library, EntryPoint = "rados_conf_read_file", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int ReadConfiguration(nint cluster, string? path);

    [LibraryImport(Library, EntryPoint = "rados_conf_set", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int Configure(nint cluster, string option, string value);

    [LibraryImport(Library, EntryPoint = "rados_connect")]
    public static partial int Connect(nint cluster);

    [LibraryImport(Library, EntryPoint = "rados_shutdown")]
    public static partial void Shutdown(nint cluster);

    [LibraryImport(Library, EntryPoint = "rados_watch_flush")]
    public static partial int FlushWatches(nint cluster);

    [LibraryImport(Library, EntryPoint = "rados_ioctx_create", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int OpenPool(nint cluster, string pool, out nint context);

    /// <summary>From now on what cannot be done since the pool is full is an error, and is not waited for.</summary>
    [LibraryImport(Library, EntryPoint = "rados_set_pool_full_try")]
    public static partial void RefuseIfFull(nint context);

    [LibraryImport(Library, EntryPoint = "rados_ioctx_destroy")]
    public static partial void ClosePool(nint context);

    [LibraryImport(Library, EntryPoint = "rados_read")]
    public static partial int Read(nint context, byte* name, byte* buffer, nuint length, ulong offset);

    [LibraryImport(Library, EntryPoint = "rados_stat")]
    public static partial int Stat(nint context, byte* name, out ulong size, out nint time);

    [LibraryImport(Library, EntryPoint = "rados_getxattr")]
    public static partial int GetAttribute(nint context, byte* name, byte* attribute, byte* buffer, nuint length);

    [LibraryImport(Library, EntryPoint = "rados_create_write_op")]
    public static partial nint CreateWrite();

    [LibraryImport(Library, EntryPoint = "rados_release_write_op")]
    public static partial void ReleaseWrite(nint write);

    [LibraryImport(Library, EntryPoint = "rados_write_op_assert_exists")]
    public static partial void AssertExists(nint write);

    [LibraryImport(Library, EntryPoint = "rados_write_op_cmpxattr")]
    public static partial void CompareAttribute(
        nint write, byte* attribute, byte comparison, byte* value, nuint length);

    [LibraryImport(Library, EntryPoint = "rados_write_op_omap_cmp", StringMarshalling = StringMarshalling.Utf8)]
    public static partial void CompareKey(
        nint write, string key, byte comparison, byte* value, nuint length, int* result);

    [LibraryImport(Library, EntryPoint = "rados_write_op_create")]
    public static partial void Create(nint write, int exclusive, nint category);

    [LibraryImport(Library, EntryPoint = "rados_write_op_setxattr")]
    public static partial void SetAttribute(nint write, byte* attribute, byte* value, nuint length);

    [LibraryImport(Library, EntryPoint = "rados_write_op_rmxattr")]
    public static partial void RemoveAttribute(nint write, byte* attribute);

    [LibraryImport(Library, EntryPoint = "rados_write_op_cmpext")]
    public static partial void CompareContent(nint write, byte* expected, nuint length, ulong offset, int* result);

    [LibraryImport(Library, EntryPoint = "rados_write_op_exec", StringMarshalling = StringMarshalling.Utf8)]
    public static partial void Execute(
        nint write, string className, string method, byte* input, nuint length, int* result);

    [LibraryImport(Library, EntryPoint = "rados_write_op_write")]
    public static partial void Write(nint write, byte* buffer, nuint length, ulong offset);

    [LibraryImport(Library, EntryPoint = "rados_write_op_truncate")]
    public static partial void Truncate(nint write, ulong length);

    [LibraryImport(Library, EntryPoint = "rados_write_op_zero")]
    public static partial void Zero(nint write, ulong offset, ulong length);

    [LibraryImport(Library, EntryPoint = "rados_write_op_remove")]
    public static partial void Remove(nint write);

    [LibraryImport(Library, EntryPoint = "rados_write_op_omap_set")]
    public static partial void SetKeys(nint write, byte** keys, byte** values, nuint* lengths, nuint count);

    [LibraryImport(Library, EntryPoint = "rados_write_op_omap_rm_keys")]
    public static partial void RemoveKeys(nint write, byte** keys, nuint count);

    [LibraryImport(Library, EntryPoint = "rados_write_op_operate")]
    public static partial int Operate(nint write, nint context, byte* name, nint time, int flags);

    [LibraryImport(Library, EntryPoint = "rados_aio_write_op_operate")]
    public static partial int BeginOperate(nint write, nint context, nint completion, byte* name, nint time, int flags);

    [LibraryImport(Library, EntryPoint = "rados_aio_read")]
    public static partial int BeginRead(
        nint context, byte* name, nint completion, byte* buffer, nuint length, ulong offset);

    [LibraryImport(Library, EntryPoint = "rados_aio_create_completion2")]
    public static partial int CreateCompletion(
        nint argument, delegate* unmanaged[Cdecl]<nint, nint, void> complete, out nint completion);

    [LibraryImport(Library, EntryPoint = "rados_aio_get_return_value")]
    public static partial int GetResult(nint completion);

    [LibraryImport(Library, EntryPoint = "rados_aio_release")]
    public static partial void ReleaseCompletion(nint completion);

    [LibraryImport(Library, EntryPoint = "rados_create_read_op")]
    public static partial nint CreateRead();

    [LibraryImport(Library, EntryPoint = "rados_release_read_op")]
    public static partial void ReleaseRead(nint read);

    [LibraryImport(Library, EntryPoint = "rados_read_op_omap_get_vals2", StringMarshalling = StringMarshalling.Utf8)]
    public static partial void GetKeys(
        nint read, string after, string prefix, ulong max, out nint iterator, byte* more, int* result);

    [LibraryImport(Library, EntryPoint = "rados_read_op_operate")]
    public static partial int Operate(nint read, nint context, byte* name, int flags);

    [LibraryImport(Library, EntryPoint = "rados_omap_get_next")]
    public static partial int GetNext(nint iterator, out nint key, out byte* value, out nuint length);

    [LibraryImport(Library, EntryPoint = "rados_omap_get_end")]
    public static partial void EndKeys(nint iterator);

    [LibraryImport(Library, EntryPoint = "rados_lock_exclusive", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int LockExclusive(
        nint context, byte* name, string lockName, string cookie, string description, long* duration, byte flags);

    [LibraryImport(Library, EntryPoint = "rados_lock_shared", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int LockShared(
        nint context, byte* name, string lockName, string cookie, string tag, string description, long* duration,
        byte flags);

    [LibraryImport(Library, EntryPoint = "rados_unlock", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int Unlock(nint context, byte* name, string lockName, string cookie);

    [LibraryImport(Library, EntryPoint = "rados_break_lock", StringMarshalling = StringMarshalling.Utf8)]
    public static partial int BreakLock(nint context, byte* name, string lockName, string client, string cookie);

    [LibraryImport(Library, EntryPoint = "rados_list_lockers", StringMarshalling = StringMarshalling.Utf8)]
    public static partial nint ListLockers(
        nint context, byte* name, string lockName, out int exclusive, byte* tag, ref nuint tagLength,
        byte* clients, ref nuint clientsLength, byte* cookies, ref nuint cookiesLength, byte* addresses,
        ref nuint addressesLength);

    [LibraryImport(Library, EntryPoint = "rados_watch3")]
    public static partial int Watch(
        nint context, byte* name, out ulong watch,
        delegate* unmanaged[Cdecl]<nint, ulong, ulong, ulong, byte*, nuint, void> notified,
        delegate* unmanaged[Cdecl]<nint, ulong, int, void> failed, uint timeoutSeconds, nint argument);

    [LibraryImport(Library, EntryPoint = "rados_unwatch2")]
    public static partial int Unwatch(nint context, ulong watch);

    [LibraryImport(Library, EntryPoint = "rados_notify2")]
    public static partial int Notify(
        nint context, byte* name, byte* message, int length, ulong timeoutMs, out byte* reply, out nuint replyLength);

    [LibraryImport(Library, EntryPoint = "rados_notify_ack")]
    public static partial int Acknowledge(
        nint context, byte* name, ulong notification, ulong watch, byte* reply, int length);

    [LibraryImport(Library, EntryPoint = "rados_buffer_free")]
    public static partial void FreeBuffer(byte* buffer);
}
