using System.CommandLine;
using Ublkback.Control;
using Ublkback.Hosting;

namespace Ublkback.Commands.Disks;

/// <summary>
/// Commands of the form <c>ublkback VERB [DOMID [DEVICE]]</c>, which the daemon carries out on disks.
/// </summary>
internal static class DiskCommands
{
    /// <summary>Makes one; for each disk that it was carried out on, a line ends in what is told of it.</summary>
    /// <param name="verb">Its name.</param>
    /// <param name="description">What it does.</param>
    /// <param name="tell">What is told of a disk.</param>
    /// <param name="complete">Adds to the request what options say; null for a command without any.</param>
    public static Command Make(
        string verb, string description, Func<VbdReport, string> tell,
        Func<ParseResult, ControlRequest, ControlRequest>? complete = null)
    {
        Option<string> host = CommonOptions.Host();
        Argument<int?> domid = new("domid")
        {
            Description = "The guest; all guests when left out.",
            Arity = ArgumentArity.ZeroOrOne,
        };
        Argument<string?> device = new("device")
        {
            Description = "The disk's name in the guest, such as xvda; all its disks when left out.",
            Arity = ArgumentArity.ZeroOrOne,
        };
        Command command = new(verb, description) { host, domid, device };
        command.SetAction(async (arguments, _) =>
        {
            ControlRequest request = new(verb, Domid: arguments.GetValue(domid), Device: arguments.GetValue(device));
            if (complete is not null) request = complete(arguments, request);
            IReadOnlyList<VbdReport> vbds = await AskAsync(
                HostEnvironment.Parse(arguments.GetRequiredValue(host)), request).ConfigureAwait(false);
            foreach (VbdReport vbd in vbds)
                Console.WriteLine($"guest {vbd.Domid} {vbd.Device}, {vbd.Target}: {tell(vbd)}");
            return 0;
        });
        return command;
    }

    /// <summary>Has the daemon carry out a request on the disks that it names, and returns these.</summary>
    /// <exception cref="CommandException">There is no daemon, no such disk, or it could not be done.</exception>
    public static async Task<IReadOnlyList<VbdReport>> AskAsync(HostEnvironment host, ControlRequest request)
    {
        IReadOnlyList<VbdReport> vbds = await Reports.AskAsync(host, request).ConfigureAwait(false);
        return vbds.Count > 0
            ? vbds
            : throw new CommandException("there is no such disk: 'ublkback list' shows those there are");
    }
}
