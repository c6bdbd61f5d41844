using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using Ublkback.Rados.Pools;

namespace Ublkback.Rados.Locks;

/// <summary>
/// What a change says of locks, so that the OSD compares it in the same operation: calls of the class <c>lock</c> of
/// the OSDs (src/cls/lock/cls_lock_ops.h). Any thread.
/// </summary>
public static class LockClass
{
    private const string Name = "lock";
    private const byte Exclusive = 1; // ClsLockType::EXCLUSIVE
    private const byte Client = 8; // CEPH_ENTITY_TYPE_CLIENT
    private const string ClientPrefix = "client.";

    /// <summary>Only while we hold a lock alone; the change is refused as busy otherwise.</summary>
    public static RadosWrite IfHeld(this RadosWrite write, RadosLockName which)
    {
        List<byte> fields = [];
        Add(fields, which.Name);
        fields.Add(Exclusive);
        Add(fields, which.Cookie);
        Add(fields, ""); // the tag, which an exclusive lock does not have
        return write.Execute(Name, "assert_locked", Frame(fields));
    }

    /// <summary>Takes a lock away from somebody; the change is refused if that one does not hold it.</summary>
    public static RadosWrite BreakLock(this RadosWrite write, string lockName, RadosLocker locker)
    {
        ArgumentNullException.ThrowIfNull(locker);
        List<byte> fields = [];
        Add(fields, lockName);
        fields.Add(Client);
        Span<byte> number = stackalloc byte[sizeof(long)];
        BinaryPrimitives.WriteInt64LittleEndian(
            number, long.Parse(locker.Client[ClientPrefix.Length..], CultureInfo.InvariantCulture));
        fields.AddRange(number);
        Add(fields, locker.Cookie);
        return write.Execute(Name, "break_lock", Frame(fields));
    }

    /// <summary>Releases a lock that we hold; the change is refused if we do not hold it.</summary>
    public static RadosWrite Release(this RadosWrite write, RadosLockName which)
    {
        List<byte> fields = [];
        Add(fields, which.Name);
        Add(fields, which.Cookie);
        return write.Execute(Name, "unlock", Frame(fields));
    }

    // The version of the structure, the oldest that can read it, and its length.
    private static byte[] Frame(List<byte> fields)
    {
        byte[] framed = new byte[2 + sizeof(int) + fields.Count];
        (framed[0], framed[1]) = (1, 1);
        BinaryPrimitives.WriteInt32LittleEndian(framed.AsSpan(2), fields.Count);
        fields.CopyTo(framed, 2 + sizeof(int));
        return framed;
    }

    private static void Add(List<byte> fields, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        Span<byte> length = stackalloc byte[sizeof(int)];
        BinaryPrimitives.WriteInt32LittleEndian(length, bytes.Length);
        fields.AddRange(length);
        fields.AddRange(bytes);
    }
}
