namespace Ublkback.Linux.Workers;

/// <summary>
/// One user's part of a worker's buffers. It may hold an eighth of what is left for others, so that users whose storage
/// has stalled leave some to the rest: ten hold two thirds, and twenty nine tenths (the dynamic thresholds of network
/// switches, Choudhury and Hahne 1998). Who holds nothing may have any one buffer. All of an owner may hold as much as
/// they leave. On the worker.
/// </summary>
/// <param name="buffers">The worker's buffers.</param>
/// <param name="user">Who has a turn when there are some.</param>
/// <param name="owner">Whose it is: the number of a domain.</param>
[DataPath]
public sealed class RingBufferQuota(WorkerBuffers buffers, IWork user, int owner)
{
    private const int LeftForOthers = 8;

    private long _held;

    /// <summary>
    /// Rents bytes in one piece that starts on a page boundary and never moves. False: the user has a turn when it may
    /// try again, because others have given buffers back, or must do so when it has given back one of its own.
    /// </summary>
    public bool TryRent(int length, out Memory<byte> buffer)
    {
        buffer = default;
        if ((_held > 0 && (_held + length) * LeftForOthers > buffers.FreeBytes)
            || !buffers.Owners.MayTake(owner, user, length, buffers.FreeBytes))
        {
            buffers.Withdraw(user); // it may have been the first of those who wait, and must not be in their way
            return false;
        }

        if (!buffers.TryRent(user, length, out buffer)) return false;
        buffers.Owners.Take(owner, length);
        _held += length;
        return true;
    }

    /// <summary>Gives a buffer back.</summary>
    public void Return(Memory<byte> buffer)
    {
        _held -= buffer.Length;
        buffers.Return(buffer);
        buffers.Owners.Return(owner, buffer.Length);
    }

    /// <summary>Does not want any buffer any more.</summary>
    public void Withdraw()
    {
        buffers.Withdraw(user);
        buffers.Owners.Withdraw(owner, user);
    }
}
