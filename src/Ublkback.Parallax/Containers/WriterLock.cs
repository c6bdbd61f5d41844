using System.Globalization;
using System.Text;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Messages;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Requests;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// That this process, and no other, writes a VDI in a pool. Any thread; blocks it.
/// </summary>
/// <remarks>
/// A lock tells who writes. Who holds it answers when asked; who does not, since it is dead, stopped or cut off, is
/// replaced. What keeps the old one from writing is not the lock but a number, the epoch: each object that is written
/// has it as an attribute, each write names it and is refused by the OSD where another is, and who takes over raises
/// it, in the first object and in those that the log goes on in, before it reads these. So nothing is acknowledged that
/// the new one does not see. That needs neither clocks nor Ceph's blocklist, which would shut out all disks of a host
/// for one of them.
/// </remarks>
internal sealed class WriterLock : IDisposable
{
    /// <summary>
    /// The lock on a VDI's first object: exclusive for who writes, shared for those who read it while nobody does.
    /// </summary>
    public const string LockName = "writer";

    private const int EpochDigits = 16;

    private readonly RadosPool _pool;
    private readonly RadosName _first;
    private readonly RadosName _copy;
    private readonly RadosName _door;
    private readonly RadosWatch _watch;
    private readonly RadosLockName _lock;
    private readonly Action<string> _warn;
    private readonly byte[] _epoch;
    private int _isShutOut;

    private WriterLock(RadosPool pool, RadosSegments segments, RadosClaim claim)
    {
        _pool = pool;
        RadosName first = _first = segments.First;
        _copy = segments.Copy;
        _warn = claim.Warn;
        _lock = new RadosLockName(first, LockName, WriterTakeover.MakeCookie());
        _door = WriterTakeover.DoorOf(_lock.Cookie);
        // Before the lock, so that who finds it held finds us answering.
        using (RadosWrite write = new RadosWrite().Create())
            RadosException.Check(pool.TryChange(_door, write, isForced: true), $"object {_door} cannot be made");
        _watch = new RadosWatch(pool, _door, AnswerAsync);
        try
        {
            while (!RadosLocks.TryTake(pool, _lock, isShared: false, lease: null))
                WriterTakeover.Replace(pool, first, claim);
            _epoch = RaiseEpoch();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The attribute that has the epoch.</summary>
    public static ReadOnlySpan<byte> EpochAttribute => "epoch\0"u8;

    /// <summary>The epoch in which we write: digits, so that their order is that of the numbers.</summary>
    public ReadOnlySpan<byte> Epoch => _epoch;

    /// <summary>Whether somebody else has taken over.</summary>
    public bool IsShutOut => Volatile.Read(ref _isShutOut) != 0;

    /// <summary>Answers requests of other processes; null until the VDI is open.</summary>
    public MessageDispatcher? Requests { get; set; }

    /// <summary>Takes a VDI over, once nobody has it.</summary>
    /// <exception cref="ImageInUseException">Somebody has it.</exception>
    /// <exception cref="RadosException">The cluster refuses something.</exception>
    public static WriterLock Take(RadosPool pool, RadosSegments segments, RadosClaim claim) =>
        new(pool, segments, claim);

    /// <summary>An epoch as text.</summary>
    public static byte[] FormatEpoch(ulong epoch) =>
        Encoding.ASCII.GetBytes(epoch.ToString("x16", CultureInfo.InvariantCulture));

    /// <summary>Says, once, that somebody else has taken over.</summary>
    public void SayShutOut()
    {
        if (Interlocked.Exchange(ref _isShutOut, 1) == 0)
            _warn($"{_first} of pool {_pool.Name}: another host has taken this VDI over, so nothing more is written "
                + "from here: detach it here");
    }

    /// <summary>
    /// Raises the epoch of an object to ours. An object that is missing stays missing: it is damage. Returns false when
    /// another process has taken over.
    /// </summary>
    public bool Claim(RadosName name)
    {
        using RadosWrite write = new RadosWrite().IfAttributeNotAbove(EpochAttribute, _epoch)
            .SetAttribute(EpochAttribute, _epoch);
        int result = _pool.TryChange(name, write);
        return result == -LinuxError.NoEntry || IsTaken(result, name);
    }

    /// <summary>Whether a change was made. It was not, if somebody else has taken over.</summary>
    /// <exception cref="RadosException">It was not, for another reason.</exception>
    public bool IsTaken(int result, RadosName name)
    {
        if (result is not (-LinuxError.ShutOut or -LinuxError.Cancelled))
            return RadosException.Check(result, $"object {name} cannot be changed") >= 0;
        SayShutOut();
        return false;
    }

    /// <summary>
    /// Makes the object of a segment in our epoch; gives a negative error number when it cannot be made. It has its
    /// full length at once: a pool that is full refuses what makes an object longer, and takes what is written inside
    /// one.
    /// </summary>
    /// <param name="name">The object.</param>
    /// <param name="isForced">Also when the pool is full.</param>
    public int Make(RadosName name, bool isForced)
    {
        using RadosWrite write = new RadosWrite().Create().SetLength(VdiFormat.SegmentSize)
            .SetAttribute(EpochAttribute, _epoch);
        return _pool.TryChange(name, write, isForced);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        RadosLocks.Release(_pool, _lock);
        _watch.Dispose();
        using RadosWrite write = new RadosWrite().Remove();
        _ = _pool.TryChange(_door, write); // nobody looks for it any more
    }

    // The copy of what is essential has the epoch as well, so an old version of the first object does not bring an old
    // epoch back.
    private byte[] RaiseEpoch()
    {
        while (true)
        {
            byte[]? old = _pool.GetAttribute(_first, EpochAttribute);
            ulong? known = ReadEpoch(old), copied = ReadEpoch(_pool.GetAttribute(_copy, EpochAttribute));
            if (known is null && copied is null)
                throw new TargetException($"{_first} of pool {_pool.Name} has no valid epoch: it is damaged");
            byte[] next = FormatEpoch(Math.Max(known ?? 0, copied ?? 0) + 1);
            int result;
            using (RadosWrite write = new())
            {
                if (old is null) write.IfExists();
                else write.IfAttribute(EpochAttribute, old);
                result = _pool.TryChange(_first, write.SetAttribute(EpochAttribute, next));
            }

            if (result == -LinuxError.Cancelled) continue; // another process was faster
            RadosException.Check(result, $"object {_first} cannot be changed");
            RaiseCopy(next);
            return next;
        }
    }

    private void RaiseCopy(byte[] epoch)
    {
        int result;
        do
        {
            using (RadosWrite write = new RadosWrite().IfAttributeNotAbove(EpochAttribute, epoch)
                .SetAttribute(EpochAttribute, epoch))
                result = _pool.TryChange(_copy, write, isForced: true);
            if (result != -LinuxError.NoEntry) break;
            using (RadosWrite write = new RadosWrite().Create().SetAttribute(EpochAttribute, epoch))
                result = _pool.TryChange(_copy, write, isForced: true);
        }
        while (result == -LinuxError.Exists);
        // If it is not below that of the copy, another process has taken over, and nothing of ours is taken.
        if (result != -LinuxError.Cancelled) RadosException.Check(result, $"object {_copy} cannot be changed");
    }

    private static ulong? ReadEpoch(byte[]? text) =>
        text?.Length == EpochDigits && ulong.TryParse(
            Encoding.ASCII.GetString(text), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out ulong epoch)
            ? epoch
            : null;

    private async Task<byte[]> AnswerAsync(byte[] message)
    {
        if (message.AsSpan().SequenceEqual(WriterTakeover.Ping)) return WriterTakeover.Ping;
        byte[]? reply = Requests is { } requests ? await requests.AnswerAsync(message).ConfigureAwait(false) : null;
        return reply ?? VdiProtocol.Messages.Refuse("the VDI is being opened or closed: try again");
    }
}
