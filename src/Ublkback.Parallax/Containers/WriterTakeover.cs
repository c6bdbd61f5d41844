using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Messages;
using Ublkback.Rados.Bindings;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// Who holds the lock of a VDI in a pool, whether it is alive, and how it is replaced. Any thread; blocks it.
/// </summary>
/// <remarks>
/// A holder is replaced when it is known to be dead (<see cref="HolderProof"/>), or when it was silent for the whole
/// time: a warning is written to the VDI's first object, which the holder takes away as soon as it is asked or looks;
/// and the OSD takes the lock away, and raises the epoch, only if the warning is still there. So neither a question
/// that was lost nor a stop of who asks is taken for silence.
/// </remarks>
internal static class WriterTakeover
{
    private const int Rounds = 5;

    private static readonly TimeSpan RoundTime = TimeSpan.FromSeconds(2);

    /// <summary>How long a holder must be silent before it is replaced.</summary>
    public static TimeSpan Patience { get; } = RoundTime * Rounds;

    /// <summary>A question that a holder answers by itself, and its answer.</summary>
    public static byte[] Ping { get; } = [1];

    /// <summary>The same before it is replaced: it takes the warning away.</summary>
    public static byte[] LastQuestion { get; } = [2];

    private static ReadOnlySpan<byte> WarningAttribute => "warning\0"u8;

    /// <summary>
    /// The object that the holder of a cookie watches. Each has one of its own, so that nobody waits for the answers of
    /// those who were before.
    /// </summary>
    public static RadosName DoorOf(string cookie) => new($"vdi.door.{HolderProof.IdOf(cookie)}");

    /// <summary>Who holds the lock alone and is not known to be dead; null when nobody.</summary>
    public static RadosLocker? Find(RadosPool pool, RadosName first)
    {
        (IReadOnlyList<RadosLocker> lockers, bool isExclusive) = RadosLocks.List(pool, first, WriterLock.LockName);
        return isExclusive && lockers is [RadosLocker only] && !HolderProof.IsDead(only.Cookie) ? only : null;
    }

    /// <summary>
    /// Whether a holder answers at once. Who is stopped does not. Nothing may be taken from who does not.
    /// </summary>
    public static bool Answers(RadosPool pool, RadosLocker holder) =>
        RadosWatch.Notify(pool, DoorOf(holder.Cookie), Ping, RoundTime).Answers.Count > 0;

    /// <summary>Takes the lock away from a holder that is dead, or does not answer.</summary>
    /// <param name="pool">The pool.</param>
    /// <param name="first">The VDI's first object.</param>
    /// <param name="claim">Who wants it.</param>
    /// <exception cref="ImageInUseException">It is alive, or silent and may not be replaced, or there are those who
    /// read.</exception>
    public static void Replace(RadosPool pool, RadosName first, RadosClaim claim)
    {
        (IReadOnlyList<RadosLocker> lockers, bool isExclusive) = RadosLocks.List(pool, first, WriterLock.LockName);
        if (lockers.Count == 0) return;
        if (!isExclusive)
            throw new ImageInUseException($"VDI {claim.Vdi} is in use by {lockers.Count} who read it; those who died "
                + $"are forgotten after {RadosLease.Time.TotalSeconds:0} s");
        byte[] warning = [];
        if (!HolderProof.IsDead(lockers[0].Cookie))
        {
            string who = $"{claim.Describe()}, at {lockers[0].Address}";
            if (claim.ReplacesSilent) warning = Warn(pool, first);
            if (IsAlive(pool, lockers[0], claim))
                throw new ImageInUseException($"VDI {claim.Vdi} is in use by {who}");
            if (!claim.ReplacesSilent)
                throw new ImageInUseException(
                    $"VDI {claim.Vdi} is in use by {who}, which does not answer",
                    $"try again, or if it is dead, 'ublkback vdi lock {claim.Vdi} --break'");
            claim.Warn($"VDI {claim.Vdi}: {who}, does not answer, and is replaced");
        }

        if (!TryEvict(pool, first, lockers[0], warning))
            throw new ImageInUseException($"VDI {claim.Vdi} is in use by {claim.Describe()}, which answers again");
    }

    /// <summary>Says that who has the lock lives, if somebody wants to replace it.</summary>
    /// <exception cref="RadosException">That cannot be looked up.</exception>
    public static void TakeWarningAway(RadosPool pool, RadosName first, ReadOnlySpan<byte> epoch)
    {
        if (pool.GetAttribute(first, WarningAttribute) is not { Length: > 0 }) return;
        using RadosWrite write = new RadosWrite().IfAttribute(WriterLock.EpochAttribute, epoch)
            .SetAttribute(WarningAttribute, []);
        _ = pool.TryChange(first, write, isForced: true); // it may be too late
    }

    private static byte[] Warn(RadosPool pool, RadosName first)
    {
        byte[] warning = Guid.NewGuid().ToByteArray();
        using RadosWrite write = new RadosWrite().IfExists().SetAttribute(WarningAttribute, warning);
        RadosException.Check(pool.TryChange(first, write, isForced: true), $"object {first} cannot be changed");
        return warning;
    }

    // A question ends early when nobody is connected: then the holder may be connecting again.
    private static bool IsAlive(RadosPool pool, RadosLocker holder, RadosClaim claim)
    {
        using WaitNotice? wait = WaitNotice.Begin(
            () => $"an answer of the process at {holder.Address} that has VDI {claim.Vdi}");
        for (int round = 0; round < Rounds; round++)
        {
            long began = Environment.TickCount64;
            if (RadosWatch.Notify(pool, DoorOf(holder.Cookie), LastQuestion, RoundTime).Answers.Count > 0) return true;
            TimeSpan rest = RoundTime - TimeSpan.FromMilliseconds(Environment.TickCount64 - began);
            if (rest > TimeSpan.Zero) Thread.Sleep(rest);
        }

        return false;
    }

    // False when the holder has taken the warning away. It loses the lock, and its writes are refused, at one moment.
    private static bool TryEvict(RadosPool pool, RadosName first, RadosLocker holder, byte[] warning)
    {
        byte[]? old = pool.GetAttribute(first, WriterLock.EpochAttribute);
        int result;
        using (RadosWrite write = new())
        {
            if (warning.Length > 0) write.IfAttribute(WarningAttribute, warning).SetAttribute(WarningAttribute, []);
            write.IfAttribute(WriterLock.EpochAttribute, old ?? []).BreakLock(WriterLock.LockName, holder);
            if (FencingNumber.Read(old) is ulong epoch)
                write.SetAttribute(WriterLock.EpochAttribute, FencingNumber.Format(epoch + 1));
            result = pool.TryChange(first, write, isForced: true);
        }

        if (result == -LinuxError.NoEntry) return true; // it does not have it any more
        if (result == -LinuxError.Cancelled) return warning.Length == 0; // or another was faster than we
        RadosException.Check(result, $"the lock of object {first} cannot be broken");
        HolderProof.Forget(holder.Cookie);
        using RadosWrite door = new RadosWrite().Remove();
        _ = pool.TryChange(DoorOf(holder.Cookie), door); // it may be gone
        return true;
    }
}
