namespace Ublkback.Linux.Workers;

/// <summary>
/// Something under way on a worker's io_uring. One object stands for one submission at a time; who owns it learns of
/// the end through <see cref="Completed"/>, on the worker.
/// </summary>
public abstract class RingOperation
{
    /// <summary>The worker's slot for this operation while it is under way, otherwise −1.</summary>
    internal int Slot { get; set; } = -1;

    /// <summary>Whether the operation is submitted and not yet completed.</summary>
    public bool IsUnderWay => Slot >= 0;

    /// <summary>Takes the result: what the system call would return, or −errno.</summary>
    protected internal abstract void Completed(int result);
}
