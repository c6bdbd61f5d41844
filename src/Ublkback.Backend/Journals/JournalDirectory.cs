using Ublkback.Backend.Xenbus;
using Ublkback.Linux.Kernel;

namespace Ublkback.Backend.Journals;

/// <summary>
/// The journals of the connected vbds, one file each, in a directory that outlives the daemon but not the machine.
/// </summary>
public sealed class JournalDirectory(string path)
{
    private const string Prefix = "journal-";

    /// <summary>Where they are; images keep there what they have in hand.</summary>
    public string Path => path;

    /// <summary>Makes the journal of a vbd that connects.</summary>
    /// <exception cref="LinuxException">There is no room for it.</exception>
    public VbdJournal Create(VbdAddress address, JournalIdentity identity)
    {
        Directory.CreateDirectory(path);
        return VbdJournal.Create(FileOf(address), identity);
    }

    /// <summary>The journal that a daemon before us left; null when there is none.</summary>
    /// <exception cref="JournalException">It cannot be used.</exception>
    public VbdJournal? Open(VbdAddress address) => VbdJournal.Open(FileOf(address));

    /// <summary>Whether there is a journal of a vbd.</summary>
    public bool Has(VbdAddress address) => File.Exists(FileOf(address));

    /// <summary>Removes the journal of a vbd that is not connected, if there is one.</summary>
    public void Remove(VbdAddress address)
    {
        if (Directory.Exists(path)) File.Delete(FileOf(address));
    }

    /// <summary>Removes the journals of all vbds but these.</summary>
    public void KeepOnly(IReadOnlyCollection<VbdAddress> addresses)
    {
        if (!Directory.Exists(path)) return;
        HashSet<string> kept = [.. addresses.Select(FileOf)];
        foreach (string file in Directory.EnumerateFiles(path, Prefix + "*"))
        {
            if (!kept.Contains(file)) File.Delete(file);
        }
    }

    private string FileOf(VbdAddress address) => System.IO.Path.Combine(path, Prefix + address.KernelName);
}
