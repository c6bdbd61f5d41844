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
/// replaced (<see cref="WriterTakeover"/>). What keeps the old one from writing is not the lock but a number, the
/// epoch: each object that is written has it as an attribute, each write names it and is refused by the OSD where
/// another is, and who takes over raises it while it has the lock, in the first object and in those that the log goes
/// on in, before it reads these. So nothing is acknowledged that the new one does not see. That needs neither clocks
/// nor Ceph's blocklist, which would shut out all disks of a host for one of them.
/// </remarks>
internal sealed class WriterLock : IDisposable
{
    /// <summary>
    /// The lock on a VDI's first object: exclusive for who writes, shared for those who read it while nobody does.
    /// </summary>
    public const string LockName = "writer";

    private static readonly TimeSpan ReplyTime = TimeSpan.FromSeconds(5); // for replies to be sent
    private static readonly TimeSpan LookPeriod = TimeSpan.FromSeconds(5); // less than who replaces us waits

    private readonly RadosPool _pool;
    private readonly RadosName _first;
    private readonly RadosName _door;
    private readonly HolderProof _proof = HolderProof.Make();
    private readonly RadosWatch? _watch;
    private readonly Action<string> _warn;
    private readonly byte[] _epoch = [];
    private readonly Lock _looking = new();
    private bool _isOver;
    private readonly Timer? _look;
    private int _isShutOut;
    private volatile MessageDispatcher? _requests; // null until the VDI is open, and when it is being closed
    private volatile bool _hasReplied = true; // to all requests that were carried out
    private readonly AnsweredRequests _answered = new();

    private WriterLock(RadosPool pool, RadosSegments segments, RadosClaim claim)
    {
        _pool = pool;
        RadosName first = _first = segments.First;
        _warn = claim.Warn;
        Lock = new RadosLockName(first, LockName, _proof.Cookie);
        _door = WriterTakeover.DoorOf(Lock.Cookie);
        try
        {
            // Before the lock, so that who finds it held finds us answering.
            using (RadosWrite write = new RadosWrite().Create())
                RadosException.Check(pool.TryChange(_door, write, isForced: true), $"object {_door} cannot be made");
            _watch = new RadosWatch(pool, _door, AnswerAsync);
            while (!RadosLocks.TryTake(pool, Lock, isShared: false, lease: null))
                WriterTakeover.Replace(pool, first, claim);
            if (!RadosDeletion.IsThere(pool, first))
                throw new TargetException($"VDI {claim.Vdi} was deleted while it was being opened");
            _epoch = FencingNumber.TryRaise(
                pool, Lock, segments.Copy, EpochAttribute, mustBeKnown: true, write => Admit(write, claim))
                ?? throw new ImageInUseException(
                    $"VDI {claim.Vdi} was given to another process, since this one did not answer for long",
                    "try again");
            _look = new Timer(_ => Look(), null, LookPeriod, Timeout.InfiniteTimeSpan);
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>The attribute that has the epoch.</summary>
    public static ReadOnlySpan<byte> EpochAttribute => "epoch\0"u8;

    /// <summary>The lock.</summary>
    public RadosLockName Lock { get; }

    /// <summary>The epoch in which we write: digits, so that their order is that of the numbers.</summary>
    public ReadOnlySpan<byte> Epoch => _epoch;

    /// <summary>Whether somebody else has taken over.</summary>
    public bool IsShutOut => Volatile.Read(ref _isShutOut) != 0;

    /// <summary>Takes a VDI over, once nobody has it.</summary>
    /// <exception cref="ImageInUseException">Somebody has it.</exception>
    /// <exception cref="RadosException">The cluster refuses something.</exception>
    public static WriterLock Take(RadosPool pool, RadosSegments segments, RadosClaim claim) =>
        new(pool, segments, claim);

    // Who closed the VDI last, and the last requests that it answered.
    private static ReadOnlySpan<byte> ClosedAttribute => "closed\0"u8;

    /// <summary>
    /// True if a process that had a VDI has closed it without carrying out a request. False if it ended otherwise, or
    /// another process has closed the VDI since.
    /// </summary>
    public static bool HasClosedWithout(RadosPool pool, RadosName first, RadosLocker holder, Guid request) =>
        pool.GetAttribute(first, ClosedAttribute) is byte[] closed
        && IdOf(holder.Cookie) is byte[] id && closed.AsSpan().StartsWith(id)
        && AnsweredRequests.IsMissing(closed.AsSpan(id.Length), request);

    /// <summary>Carries out requests of other processes from now on.</summary>
    public void Begin(MessageDispatcher requests)
    {
        _hasReplied = false;
        _requests = requests;
    }

    /// <summary>Carries out no request from now on; each is told to try again.</summary>
    public void Postpone() => _requests = null;

    /// <summary>Waits until the replies are sent to the requests that are carried out.</summary>
    public async Task SettleAsync() => _hasReplied |= await _watch!.SettleAsync(ReplyTime).ConfigureAwait(false);

    /// <summary>Says, once, why nothing of ours is taken any more.</summary>
    public void SayShutOut(int errno)
    {
        if (Interlocked.Exchange(ref _isShutOut, 1) != 0) return;
        _warn($"{_first} of pool {_pool.Name}: "
            + (errno == LinuxError.ShutOut
                ? $"{RadosException.Describe(errno)}, so nothing more is read or written: detach the disk and attach "
                    + "it again"
                : "another host has taken this VDI over, so nothing more is written from here: detach it here"));
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
        SayShutOut(-result);
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

    /// <summary>Removes the object of a segment that we have made, if nobody else has claimed it.</summary>
    public void RemoveOwn(RadosName name)
    {
        using RadosWrite write = new RadosWrite().IfAttribute(EpochAttribute, _epoch).Remove();
        _ = _pool.TryChange(name, write); // the other one keeps it
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        lock (_looking) _isOver = true;
        _look?.Dispose();
        if (!TryReleaseClosed()) RadosLocks.Release(_pool, Lock);
        _watch?.Dispose(); // after the lock, so that nobody finds a holder that does not answer
        _proof.Dispose();
        using RadosWrite write = new RadosWrite().Remove();
        _ = _pool.TryChange(_door, write); // nobody looks for it any more
    }

    // Whoever asked, and got no answer, sees there whether the request was carried out.
    private bool TryReleaseClosed()
    {
        if (_epoch.Length == 0 || !_hasReplied) return false;
        using RadosWrite write = new RadosWrite().IfAttribute(EpochAttribute, _epoch)
            .SetAttribute(ClosedAttribute, [.. IdOf(Lock.Cookie), .. _answered.GetIds()]).Release(Lock);
        return _pool.TryChange(_first, write, isForced: true) >= 0;
    }

    private static byte[] IdOf(string cookie) => Encoding.ASCII.GetBytes(HolderProof.IdOf(cookie));

    // A VDI that is being deleted is given to nobody.
    private void Admit(RadosWrite write, RadosClaim claim)
    {
        if (RadosDeletion.IsDeleted(_pool, _first, out byte[] mark))
            throw new ImageInUseException(
                $"VDI {claim.Vdi} is being deleted", "if that was broken off, run 'ublkback vdi gc' and try again");
        write.IfAttribute(RadosDeletion.Attribute, mark);
        if (mark.Length > 0) write.RemoveAttribute(RadosDeletion.Attribute);
    }

    // Who wants to replace us learns that we live, even if we could not be asked.
    private void Look()
    {
        if (!_looking.TryEnter()) return; // somebody does
        try
        {
            if (_isOver) return; // the pool may be closed
            try
            {
                _pool.Cluster.Look(() => WriterTakeover.TakeWarningAway(_pool, _first, _epoch));
            }
            catch (RadosException)
            {
                // The next time.
            }

            _look?.Change(LookPeriod, Timeout.InfiniteTimeSpan);
        }
        finally
        {
            _looking.Exit();
        }
    }

    private async Task<byte[]> AnswerAsync(byte[] message)
    {
        if (message.AsSpan().SequenceEqual(WriterTakeover.Ping)) return WriterTakeover.Ping;
        if (message.AsSpan().SequenceEqual(WriterTakeover.LastQuestion))
        {
            Look();
            return WriterTakeover.Ping;
        }

        MessageDispatcher? requests = _requests;
        if (AnsweredRequests.Open(message) is not (Guid id, byte[] request))
            return requests is null
                ? VdiProtocol.Messages.Postpone()
                : await requests.AnswerAsync(message).ConfigureAwait(false); // says that it is malformed
        // Also when the VDI is being closed, a known request gets its reply.
        Task<byte[]>? answer = _answered.Find(id)
            ?? (requests is null ? null : _answered.AnswerAsync(id, () => requests.AnswerAsync(request)));
        return answer is null ? VdiProtocol.Messages.Postpone() : await answer.ConfigureAwait(false);
    }
}
