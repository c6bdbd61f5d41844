using System.Runtime.InteropServices;
using System.Text;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Messages;
using Ublkback.Rados.Bindings;

namespace Ublkback.Rados.Pools;

/// <summary>The objects of a pool. Any thread; blocks it, but for what a <see cref="RadosCall"/> does.</summary>
public sealed unsafe class RadosPool : IDisposable
{
    private const int KeysAtOnce = 1000;
    private const int MaxAttribute = 2048; // bytes; that of the last requests has 1056

    private readonly Action<string>? _beforeEach;

    private RadosPool(RadosCluster cluster, string name, nint handle)
    {
        Cluster = cluster;
        Name = name;
        Handle = handle;
        _beforeEach = BeforeEach.Value;
    }

    /// <summary>
    /// For tests: what pools that are opened from here do before each operation, of which it gets the name. It may
    /// block, as a process that is stopped does.
    /// </summary>
    internal static AsyncLocal<Action<string>?> BeforeEach { get; } = new();

    /// <summary>Its cluster.</summary>
    public RadosCluster Cluster { get; }

    /// <summary>Its name.</summary>
    public string Name { get; }

    /// <summary>The handle of librados.</summary>
    internal nint Handle { get; }

    /// <summary>Opens one, and connects to its cluster if need be.</summary>
    /// <param name="address">Which.</param>
    /// <param name="waitsIfFull">Whether changes wait while the pool is full, as those of RBD do everywhere; otherwise
    /// they are refused.</param>
    /// <param name="isAlone">Whether it has a connection of its own, so that what shuts it out shuts nobody else
    /// out.</param>
    /// <exception cref="TargetException">It is not there, or cannot be reached; the message says why.</exception>
    public static RadosPool Open(RadosAddress address, bool waitsIfFull, bool isAlone = false)
    {
        ArgumentNullException.ThrowIfNull(address);
        RadosCluster cluster = isAlone ? RadosCluster.Connect(address) : RadosCluster.Share(address);
        int result = LibRados.OpenPool(cluster.Handle, address.Pool, out nint handle);
        if (result == 0)
        {
            if (!waitsIfFull) LibRados.RefuseIfFull(handle);
            return new RadosPool(cluster, address.Pool, handle);
        }

        cluster.Dispose();
        RadosException cause = new(-result, $"the pool {address.Pool} cannot be opened");
        throw result == -LinuxError.NoEntry
            ? new TargetException(
                $"there is no pool {address.Pool} in the Ceph cluster of "
                    + $"{address.Where}",
                $"make it with 'ceph osd pool create {address.Pool}'", cause)
            : new TargetException(cause.Message, cause);
    }

    /// <summary>
    /// Reads from an object; gives the number of bytes, fewer at its end, and -1 when it is not there.
    /// </summary>
    /// <exception cref="RadosException">It cannot be read.</exception>
    public int Read(RadosName name, long offset, Span<byte> target)
    {
        int result;
        using IDisposable? wait = Enter("read", name);
        fixed (byte* at = name.Bytes, first = target)
            result = LibRados.Read(Handle, at, first, (nuint)target.Length, (ulong)offset);
        return Note(result) == -LinuxError.NoEntry
            ? -1
            : RadosException.Check(result, $"object {name} cannot be read");
    }

    /// <summary>The size of an object; -1 when it is not there.</summary>
    public long Measure(RadosName name)
    {
        ulong size;
        int result;
        using IDisposable? wait = Enter("measure", name);
        fixed (byte* at = name.Bytes) result = LibRados.Stat(Handle, at, out size, out _);
        return Note(result) == -LinuxError.NoEntry
            ? -1
            : RadosException.Check(result, $"object {name} cannot be looked at") + (long)size;
    }

    /// <summary>An attribute of an object; null when the object or the attribute is not there.</summary>
    public byte[]? GetAttribute(RadosName name, ReadOnlySpan<byte> attribute)
    {
        const int NoData = 61;
        byte[] value = new byte[MaxAttribute];
        int result;
        using IDisposable? wait = Enter("read", name);
        fixed (byte* at = name.Bytes, asked = attribute, first = value)
            result = LibRados.GetAttribute(Handle, at, asked, first, MaxAttribute);
        return Note(result) is -LinuxError.NoEntry or -NoData
            ? null
            : value[..RadosException.Check(result, $"object {name} cannot be read")];
    }

    /// <summary>Makes changes; gives 0, or a negative error number.</summary>
    /// <param name="name">The object.</param>
    /// <param name="write">The changes.</param>
    /// <param name="isForced">Also when the pool is full, for what takes next to nothing and is needed to make
    /// room.</param>
    public int TryChange(RadosName name, RadosWrite write, bool isForced = false)
    {
        using IDisposable? wait = Enter("change", name);
        fixed (byte* at = name.Bytes)
            return Note(LibRados.Operate(write.Handle, Handle, at, 0, isForced ? LibRados.FullForce : 0));
    }

    /// <summary>Makes changes.</summary>
    /// <exception cref="RadosException">They were not made.</exception>
    public void Change(RadosName name, RadosWrite write) =>
        RadosException.Check(TryChange(name, write), $"object {name} cannot be changed");

    /// <summary>
    /// The keys of an object that begin with a prefix, in order, and their values; none when it is not there.
    /// </summary>
    /// <exception cref="RadosException">They cannot be read.</exception>
    public IReadOnlyList<KeyValuePair<string, string>> GetKeys(RadosName name, string prefix)
    {
        List<KeyValuePair<string, string>> keys = [];
        while (true)
        {
            int before = keys.Count;
            if (!GetKeys(name, prefix, keys) || keys.Count == before) return keys;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        LibRados.ClosePool(Handle);
        Cluster.Dispose();
    }

    /// <summary>
    /// Is called before each operation. The result ends when the operation has: until then people are told after a
    /// while what is waited for.
    /// </summary>
    internal IDisposable? Enter(string what, RadosName name)
    {
        Pass(what, name);
        return WaitNotice.Sink is null ? null : Tell(what, name);
    }

    /// <summary>Is called before an operation that nobody waits for here.</summary>
    internal void Pass(string what, RadosName name) => _beforeEach?.Invoke($"{what} {name}");

    /// <summary>Takes notice of the result of an operation, and gives it back.</summary>
    internal int Note(int result)
    {
        if (result == -LinuxError.ShutOut) Cluster.Forget();
        return result;
    }

    private WaitNotice? Tell(string what, RadosName name) =>
        WaitNotice.Begin(() => $"the pool {Name} of Ceph ({what} {name})");

    // Whether there are more.
    private bool GetKeys(RadosName name, string prefix, List<KeyValuePair<string, string>> keys)
    {
        nint read = LibRados.CreateRead();
        byte more = 0;
        int ended = 0, result;
        using IDisposable? wait = Enter("read", name);
        LibRados.GetKeys(
            read, keys is [.., KeyValuePair<string, string> last] ? last.Key : "", prefix, KeysAtOnce,
            out nint iterator, &more, &ended);
        fixed (byte* at = name.Bytes) result = LibRados.Operate(read, Handle, at, 0);
        if (result == 0)
        {
            while (LibRados.GetNext(iterator, out nint key, out byte* value, out nuint length) == 0 && key != 0)
                keys.Add(new KeyValuePair<string, string>(
                    Marshal.PtrToStringUTF8(key)!,
                    Encoding.UTF8.GetString(new ReadOnlySpan<byte>(value, (int)length))));
            LibRados.EndKeys(iterator);
        }

        LibRados.ReleaseRead(read);
        if (Note(result) != -LinuxError.NoEntry)
            RadosException.Check(result, $"the keys of object {name} cannot be read");
        return more != 0;
    }
}
