using Ublkback.Block;
using Ublkback.Linux.Messages;
using Ublkback.Parallax.Containers;
using Ublkback.Parallax.Format;
using Ublkback.Parallax.Requests;

namespace Ublkback.Parallax.Stores;

/// <summary>
/// Where VDIs are kept, by number, and their names. Any number of processes use it at the same time. Any thread; blocks
/// it. Failures are
/// <see cref="TargetException"/>s with a sentence for people.
/// </summary>
internal interface IVdiStore : IDisposable
{
    /// <summary>What it is, for people to read.</summary>
    string Description { get; }

    /// <summary>The store's identity.</summary>
    Guid Id { get; }

    /// <summary>The names of its VDIs, in order.</summary>
    IReadOnlyList<string> Names { get; }

    /// <summary>The numbers of all VDIs, those without names too, in order.</summary>
    IReadOnlyList<uint> Numbers { get; }

    /// <summary>What is where only VDIs and names should be, and is neither. It does no harm.</summary>
    IReadOnlyList<string> Strays => [];

    /// <summary>The number of a VDI.</summary>
    /// <exception cref="NoSuchVdiException">There is none of that name.</exception>
    uint Find(string name);

    /// <summary>True if a name still means a VDI.</summary>
    bool Has(string name, uint vdi)
    {
        try
        {
            return Find(name) == vdi;
        }
        catch (NoSuchVdiException)
        {
            return false;
        }
    }

    /// <summary>Whether there is something under a number.</summary>
    bool Exists(uint vdi);

    /// <summary>Bytes that a VDI takes.</summary>
    long MeasureUsage(uint vdi);

    /// <summary>Opens a VDI as its owner: to write it, or to read it while nobody does.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="cache">As the option <c>cache</c> of raw images.</param>
    /// <param name="opening">Who opens it.</param>
    /// <exception cref="ImageInUseException">Somebody has it; the message says who.</exception>
    IVdiContainer OpenOwn(string name, string cache, ImageOpening opening);

    /// <summary>
    /// Takes the lock of a VDI away from who has it open and does not answer, so that nothing is taken from it any
    /// more.
    /// </summary>
    /// <exception cref="ImageInUseException">It is alive.</exception>
    void BreakLock(string name, Action<string> warn);

    /// <summary>Opens any VDI for reading, whoever has it.</summary>
    /// <exception cref="TargetException">It cannot be opened, or is not of this store.</exception>
    (IVdiContainer Container, VdiSuperblock Superblock) OpenOther(uint vdi, Action<string> warn);

    /// <summary>What the file of any VDI says of itself, whoever has it.</summary>
    /// <exception cref="TargetException">It cannot be opened, or is damaged.</exception>
    VdiMetadata ReadMetadata(uint vdi, Action<string> warn)
    {
        using IVdiContainer container = OpenOther(vdi, warn).Container;
        return VdiMetadata.Read(container);
    }

    /// <summary>Opens a VDI that has no name any more, to give back what is not needed.</summary>
    IVdiContainer OpenUnnamed(uint vdi, Action<string> warn);

    /// <summary>
    /// What is another text after somebody has opened a VDI for writing, or written one of its heads; null if the store
    /// has no such thing. Then a VDI is collected only by a process that has it open.
    /// </summary>
    string? ReadState(uint vdi) => null;

    /// <summary>
    /// Opens a VDI that nobody has open, to free blocks of it. The result must be disposed soon, since guests wait for
    /// it. Null if somebody has it open, or had since its state was read.
    /// </summary>
    IVdiContainer? TryOpenToCollect(uint vdi, string state, Action<string> warn) => null;

    /// <summary>Keeps a snapshot from being deleted, until the result is disposed.</summary>
    /// <param name="vdi">The VDI.</param>
    /// <param name="snapshot">The snapshot.</param>
    /// <param name="warn">Is told when it is not kept any more, since this process was stopped for long.</param>
    /// <exception cref="TargetException">It is being deleted.</exception>
    IDisposable Pin(uint vdi, ulong snapshot, Action<string> warn);

    /// <summary>
    /// Lets nobody pin a snapshot until the result is disposed; null when it is pinned. Who deletes it holds this.
    /// </summary>
    IDisposable? TryForbidPins(uint vdi, ulong snapshot);

    /// <summary>
    /// Lets nobody open a VDI any more, which this process has open. Under <see cref="LockStructure"/>, before it is
    /// looked whether it can be deleted.
    /// </summary>
    /// <returns>Allows it again when it is disposed.</returns>
    /// <exception cref="TargetException">Another process has the VDI now.</exception>
    IDisposable BeginDeletion(uint vdi) => new EndingAction(() => { }); // where the lock of the VDI is enough

    /// <summary>Whether somebody has a VDI open for writing.</summary>
    bool IsWritten(uint vdi);

    /// <summary>Who writes a VDI, or did last; null when nobody ever did.</summary>
    WriterRecord? ReadHolder(uint vdi);

    /// <summary>Lets one at a time of all processes change which VDIs and snapshots there are.</summary>
    /// <exception cref="ImageInUseException">Another one has not ended for long.</exception>
    IStoreLock LockStructure();

    /// <summary>
    /// Lets one at a time of all processes look for what is not needed any more. Before <see cref="LockStructure"/>,
    /// when both are needed.
    /// </summary>
    /// <param name="patience">How long it waits for another one, if that is longer than the store waits by itself.
    /// </param>
    /// <param name="cancellation">Ends the wait.</param>
    /// <exception cref="ImageInUseException">Another one has not ended for long.</exception>
    /// <exception cref="OperationCanceledException">The wait was ended.</exception>
    IStoreLock LockCollection(TimeSpan patience = default, CancellationToken cancellation = default);

    /// <summary>Makes a VDI with a content. Under <see cref="LockStructure"/>.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="content">Makes its content, for its number.</param>
    /// <param name="origin">What it is cloned from; empty when from nothing.</param>
    /// <param name="isUnfinished">True if it is filled from now on, and cannot be used until then.</param>
    /// <exception cref="TargetException">The name is taken, or the storage is full; nothing is left.</exception>
    void Create(string name, Func<uint, VdiVersion> content, string origin, bool isUnfinished = false);

    /// <summary>
    /// Takes a VDI's name away. What it has is left for the collector. Under <see cref="LockStructure"/>.
    /// </summary>
    void Unlink(string name);

    /// <summary>Removes a VDI to which nothing refers. Under <see cref="LockStructure"/>.</summary>
    void Remove(uint vdi);

    /// <summary>
    /// Compares what says that this is a store, and the names of its VDIs, with their copies. Under
    /// <see cref="LockStructure"/>.
    /// </summary>
    /// <param name="onFault">Takes a sentence about each that is damaged.</param>
    /// <param name="repairs">True if it is to be written again from the other copy.</param>
    void CheckCopies(Action<string> onFault, bool repairs);

    /// <summary>
    /// Answers requests of other processes from now on, until the result is disposed; those that come later are told to
    /// try again. If the result is also an <see cref="IAsyncDisposable"/>, that waits until all replies are sent. This
    /// process holds the VDI open for writing.
    /// </summary>
    IDisposable Listen(uint vdi, MessageDispatcher requests);

    /// <summary>
    /// Sends a request, once, to the process that holds a VDI open for writing, and returns what became of it.
    /// </summary>
    /// <exception cref="TargetException">It was not sent; the message says why.</exception>
    Task<VdiDelivery> TryAskAsync(uint vdi, byte[] request);
}
