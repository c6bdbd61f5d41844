using System.Globalization;
using Ublkback.Block;
using Ublkback.Rados.Locks;
using Ublkback.Rados.Pools;

namespace Ublkback.Parallax.Containers;

/// <summary>
/// Who holds the lock of a VDI in a pool, whether it is alive, and how it is replaced. Any thread; blocks it.
/// </summary>
internal static class WriterTakeover
{
    /// <summary>How long a holder may be silent before it is replaced.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private static readonly string Boot = File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim();

    /// <summary>A question that a holder answers by itself, and its answer.</summary>
    public static byte[] Ping { get; } = [1];

    /// <summary>
    /// A cookie for a lock, that tells on this host whether its holder is dead, and where the holder can be asked.
    /// </summary>
    public static string MakeCookie() =>
        string.Create(
            CultureInfo.InvariantCulture,
            $"{Boot}/{Environment.ProcessId}/{StartOf(Environment.ProcessId)}/{Guid.NewGuid():n}");

    /// <summary>
    /// The object that the holder of a cookie watches. Each has one of its own, so that nobody waits for the answers of
    /// those who were before.
    /// </summary>
    public static RadosName DoorOf(string cookie) => new($"vdi.door.{cookie[(cookie.LastIndexOf('/') + 1)..]}");

    /// <summary>Who holds the lock alone and is not known to be dead; null when nobody.</summary>
    public static RadosLocker? Find(RadosPool pool, RadosName first)
    {
        (IReadOnlyList<RadosLocker> lockers, bool isExclusive) = RadosLocks.List(pool, first, WriterLock.LockName);
        return isExclusive && lockers is [RadosLocker only] && !IsDead(only) ? only : null;
    }

    /// <summary>Whether a holder answers. Who is stopped does not.</summary>
    public static bool IsAlive(RadosPool pool, RadosLocker holder) =>
        RadosWatch.Notify(pool, DoorOf(holder.Cookie), Ping, Patience).Answers.Count > 0;

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
        if (!IsDead(lockers[0]))
        {
            string who = $"{claim.Describe()}, at {lockers[0].Address}";
            if (IsAlive(pool, lockers[0])) throw new ImageInUseException($"VDI {claim.Vdi} is in use by {who}");
            if (!claim.ReplacesSilent)
                throw new ImageInUseException(
                    $"VDI {claim.Vdi} is in use by {who}, which does not answer",
                    $"try again, or if it is dead, 'ublkback vdi lock {claim.Vdi} --break'");
            claim.Warn($"VDI {claim.Vdi}: {who}, does not answer, and is replaced");
        }

        RadosLocks.Break(pool, first, WriterLock.LockName, lockers[0]);
        using RadosWrite write = new RadosWrite().Remove();
        _ = pool.TryChange(DoorOf(lockers[0].Cookie), write); // it may be gone
    }

    // On this host it is known; on others, who does not answer is as good as dead.
    private static bool IsDead(RadosLocker holder)
    {
        string[] parts = holder.Cookie.Split('/');
        return parts.Length == 4 && parts[0] == Boot
            && int.TryParse(parts[1], CultureInfo.InvariantCulture, out int process) && StartOf(process) != parts[2];
    }

    // Field 22 of /proc/PID/stat: numbers of processes come again, with another start.
    private static string StartOf(int process)
    {
        try
        {
            string stat = File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{process}/stat"));
            string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' '); // from field 3 on, the state
            return fields[0] is "Z" or "X" ? "" : fields[19];
        }
        catch (IOException)
        {
            return "";
        }
    }
}
